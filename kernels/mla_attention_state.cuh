// What the kernels of latent attention (mla_attention_cuda.cu) share: the state of a split, and how
// one is folded into those before it.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/mla_attention_cuda.h"

namespace assay::kernels {

constexpr float kLog2e = 1.4426950408889634f;
// Weights are at most 2^10, so that small ones stay normal in binary16. Cancels in the division.
constexpr float kWeightExponent = 10;

// 2^x for weights, which are 0 where they would be subnormal.
__device__ inline float weight_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// How a later state is folded into an earlier one, whose largest score is -inf if it is empty.
struct Fold {
  __device__ Fold(float before, float later)
      : largest(fmaxf(before, later)),
        keep(before == largest ? 1.0f : exp2f(before - largest)),
        fresh(later == largest ? 1.0f : exp2f(later - largest)) {}
  __device__ float operator()(float past, float value) const {
    return fmaf(value, fresh, past * keep);
  }
  float largest, keep, fresh;
};

// Largest and sum of each pair's splits, behind their latents in a.parts.
__device__ inline float2* split_states(const MlaAttentionCuda& a, int n_splits) {
  return reinterpret_cast<float2*>(a.parts + static_cast<size_t>(a.n_rows) * a.n_heads * n_splits *
                                                 a.kv_lora);
}

// The keys of a row: entries of its list, or all up to its position. Read before the launch ahead
// has ended, so past this multiprocessor's own cache, which may hold what these were a layer ago.
struct KeysOfRow {
  __device__ KeysOfRow(const MlaAttentionCuda& a, int row)
      : list(a.keys == nullptr ? nullptr : a.keys + static_cast<size_t>(row) * a.keys_stride),
        n(a.keys == nullptr ? __ldcg(a.position + row) + 1 : __ldcg(a.n_keys + row)),
        cache(reinterpret_cast<const __half*>(__ldcg(cache_address(a, row)))),
        stride(2 * (a.kv_lora + a.rope)) {}
  // Past the end the last one again, which no pair sees.
  __device__ int position(int i) const {
    const int at = min(i, n - 1);
    return list == nullptr ? at : __ldcg(list + at);
  }
  __device__ const __half* at(int position) const {
    return cache + static_cast<size_t>(position) * stride;
  }
  // As a number: __ldcg has no pointers to pointers.
  __device__ static const unsigned long long* cache_address(const MlaAttentionCuda& a, int row) {
    return reinterpret_cast<const unsigned long long*>(a.cache) + row;
  }
  const int* list;
  int n;
  const __half* cache;
  int stride;  // between two keys
};

__device__ inline float4 folded(const Fold& fold, float4 past, float4 v) {
  return {fold(past.x, v.x), fold(past.y, v.y), fold(past.z, v.z), fold(past.w, v.w)};
}
__device__ inline float4 divided(float4 v, float by) {
  return {v.x / by, v.y / by, v.z / by, v.w / by};
}

// Of the two columns each that a lane and its neighbour have of two neighbouring tiles of eight,
// the four of one tile that the lane writes at once, and which of the 16 is the first of them.
__device__ inline float4 four_columns(float2 first, float2 second) {
  const bool odd = threadIdx.x % 2 != 0;
  const float2 give = odd ? first : second, keep = odd ? second : first;
  const float2 got = {__shfl_xor_sync(0xFFFFFFFFu, give.x, 1),
                      __shfl_xor_sync(0xFFFFFFFFu, give.y, 1)};
  return odd ? float4{got.x, got.y, keep.x, keep.y} : float4{keep.x, keep.y, got.x, got.y};
}

__device__ inline int first_of_four() {
  return static_cast<int>(threadIdx.x) % 2 * 8 + static_cast<int>(threadIdx.x) % 4 / 2 * 4;
}

}  // namespace assay::kernels
