// CUDA_CHECK(call) << shape: a failing CUDA call is reported with its text, the place and what was
// running, then aborts.
#pragma once

#include <cuda_runtime.h>

#include <mutex>

#include "base/check.h"

#define CUDA_CHECK(call)                                                  \
  if (const cudaError_t cuda_error = (call); cuda_error == cudaSuccess) { \
  } else                                                                  \
    ::assay::CheckFailure(__FILE__, __LINE__, #call).stream()             \
        << cudaGetErrorName(cuda_error) << ": " << cudaGetErrorString(cuda_error) << ". "

namespace assay::kernels {

// Of the current device.
inline int n_multiprocessors() {
  int device = 0, count = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

// That a block may ask for, of the current device.
inline std::size_t max_shared_bytes() {
  int device = 0, bytes = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<std::size_t>(bytes);
}

// What has to be done once on each device before a kernel runs there, as setting its attributes.
class OncePerDevice {
 public:
  static constexpr int kMaxDevices = 64;
  template <class Prepare>
  void operator()(const Prepare& prepare) {
    int device = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CHECK(device < kMaxDevices) << device;
    std::call_once(done_[device], prepare);
  }

 private:
  std::once_flag done_[kMaxDevices];
};

// That a kernel's blocks may ask for `bytes`, and get the largest share of L1: a multiprocessor
// whose next kernel wants another split has to drain first.
inline void prefer_shared_memory(const void* kernel, std::size_t bytes) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)))
      << bytes << " bytes";
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared));
}

// Into the second-level cache.
__device__ inline void prefetch_line(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

// Programmatic dependent launch. A kernel that is launched by `overlapped` may begin before the one
// ahead of it on the stream has ended. Each of its blocks must call await_previous before it reads
// or writes what others do, whatever its path, and only after that let_next_begin; so what kernels
// before the previous one wrote may be read at once.
__device__ inline void await_previous() { cudaGridDependencySynchronize(); }
__device__ inline void let_next_begin() { cudaTriggerProgrammaticLaunchCompletion(); }

template <class... Params, class... Args>
void overlapped(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes,
                CUstream_st* stream, Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...))
      << grid.x << " x " << grid.y << " x " << grid.z << " blocks, " << shared_bytes << " bytes";
}

}  // namespace assay::kernels
