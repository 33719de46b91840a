// A row of floats for sums over it: dealt to a block's threads in pieces of four neighbouring
// values, which stay in registers, so that all loads of a row are on their way at once and it is
// read once. Whose piece is whose goes by the row's length alone, so a sum's bits do too: not by
// where the row lies, nor by what shares its launch.
#pragma once

#include "kernels/row_dot.cuh"

namespace assay::kernels {

// Values i … i + 3 of n, zeros past the end. `aligned`: n is a multiple of 4, the row of 16 bytes.
__device__ inline float4 load_piece(const float* row, int i, int n, bool aligned) {
  if (i >= n) return {0, 0, 0, 0};
  if (aligned) return *reinterpret_cast<const float4*>(row + i);
  const auto at = [&](int c) { return c < n ? row[c] : 0.0f; };
  return {row[i], at(i + 1), at(i + 2), at(i + 3)};
}
__device__ inline void store_piece(float* row, int i, int n, bool aligned, float4 v) {
  if (i >= n) return;
  if (aligned) {
    *reinterpret_cast<float4*>(row + i) = v;
    return;
  }
  row[i] = v.x;
  if (i + 1 < n) row[i + 1] = v.y;
  if (i + 2 < n) row[i + 2] = v.z;
  if (i + 3 < n) row[i + 3] = v.w;
}

inline bool pieces_are_aligned(const void* first, int n, int stride = 0) {
  return n % 4 == 0 && stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(first) % 16 == 0;
}

// Threads, whole warps of them, that share n values at n_pieces a thread.
constexpr int threads_of_row(int n, int n_pieces) {
  return ((n + 4 * n_pieces - 1) / (4 * n_pieces) + 31) / 32 * 32;
}

// The same sum in every thread of a block of whole warps, at most 32: a tree over lanes, then one
// over warps. Warps whose values are zero change no bit of it.
__device__ inline float block_sum(float value) {
  __shared__ float of_warp[32];
  const int n_warps = blockDim.x / 32, lane = threadIdx.x % 32;
  value = warp_sum(value);
  if (n_warps == 1) return value;
  __syncthreads();  // of_warp may still be read from the call before
  if (lane == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < n_warps ? of_warp[lane] : 0.0f);
}

__device__ inline float rms_factor(float sum_of_squares, int n, float eps) {
  return 1.0f / sqrtf(sum_of_squares / static_cast<float>(n) + eps);
}

// weight * (x * factor), of each.
__device__ inline float4 scaled(float4 weight, float4 x, float factor) {
  return {weight.x * (x.x * factor), weight.y * (x.y * factor), weight.z * (x.z * factor),
          weight.w * (x.w * factor)};
}

}  // namespace assay::kernels
