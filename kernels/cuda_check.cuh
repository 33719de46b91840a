// CUDA_CHECK(call) << shape: a failing CUDA call is reported with its text, the place and what was
// running, then aborts.
#pragma once

#include <cuda_runtime.h>

#include "base/check.h"

#define CUDA_CHECK(call)                                                  \
  if (const cudaError_t cuda_error = (call); cuda_error == cudaSuccess) { \
  } else                                                                  \
    ::assay::CheckFailure(__FILE__, __LINE__, #call).stream()             \
        << cudaGetErrorName(cuda_error) << ": " << cudaGetErrorString(cuda_error) << ". "
