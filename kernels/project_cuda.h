// Dense bf16 projection on a GPU, for decode. Plain C++: device pointers and an opaque stream.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace assay::kernels {

using CudaStream = CUstream_st*;  // cudaStream_t

// y = W x for each of n_tokens rows of x. W (n_rows, n_cols) bf16, x (n_tokens, n_cols) f32, y
// (n_tokens, n_rows) f32, all on the device, 16-byte aligned; n_cols a multiple of 8. Accumulates
// in float32, in a fixed order: the same request gives the same bits whatever n_tokens is.
void project_bf16_cuda(const std::uint16_t* w, int n_rows, int n_cols, const float* x, int n_tokens,
                       float* y, CudaStream stream);

}  // namespace assay::kernels
