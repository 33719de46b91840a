#include <cuda_bf16.h>

#include "kernels/cuda_check.cuh"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

constexpr int kWarpsPerBlock = 4;

__device__ float bf16_low(unsigned word) { return __uint_as_float(word << 16); }
__device__ float bf16_high(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }

// One warp owns one row of W for one token: each lane takes 16-byte pieces 32 apart, so that a warp
// reads 512 consecutive bytes, and the lanes' sums meet in a fixed tree.
__global__ void gemv(const uint4* __restrict__ w, int n_rows, int n_pieces,
                     const float4* __restrict__ x, float* __restrict__ y) {
  const int row = blockIdx.x * kWarpsPerBlock + threadIdx.y;
  if (row >= n_rows) return;
  const uint4* w_row = w + static_cast<size_t>(row) * n_pieces;
  const float4* x_row = x + static_cast<size_t>(blockIdx.y) * n_pieces * 2;
  float sum = 0;
  for (int i = threadIdx.x; i < n_pieces; i += 32) {
    const uint4 piece = w_row[i];
    const float4 a = x_row[2 * i], b = x_row[2 * i + 1];
    sum = fmaf(bf16_low(piece.x), a.x, sum);
    sum = fmaf(bf16_high(piece.x), a.y, sum);
    sum = fmaf(bf16_low(piece.y), a.z, sum);
    sum = fmaf(bf16_high(piece.y), a.w, sum);
    sum = fmaf(bf16_low(piece.z), b.x, sum);
    sum = fmaf(bf16_high(piece.z), b.y, sum);
    sum = fmaf(bf16_low(piece.w), b.z, sum);
    sum = fmaf(bf16_high(piece.w), b.w, sum);
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
  if (threadIdx.x == 0) y[static_cast<size_t>(blockIdx.y) * n_rows + row] = sum;
}

}  // namespace

void project_bf16_cuda(const std::uint16_t* w, int n_rows, int n_cols, const float* x, int n_tokens,
                       float* y, CudaStream stream) {
  CHECK(n_rows > 0 && n_cols > 0 && n_cols % 8 == 0 && n_tokens > 0 && n_tokens < 65536)
      << n_rows << " x " << n_cols << ", " << n_tokens << " tokens";
  const dim3 grid((n_rows + kWarpsPerBlock - 1) / kWarpsPerBlock, n_tokens),
      block(32, kWarpsPerBlock);
  gemv<<<grid, block, 0, stream>>>(reinterpret_cast<const uint4*>(w), n_rows, n_cols / 8,
                                   reinterpret_cast<const float4*>(x), y);
  CUDA_CHECK(cudaGetLastError()) << "gemv " << n_rows << " x " << n_cols << ", " << n_tokens
                                 << " tokens";
}

}  // namespace assay::kernels
