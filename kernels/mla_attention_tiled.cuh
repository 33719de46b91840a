// Latent attention of up to 32 (row, head) pairs on tensor cores; mla_attention_cuda.cu launches
// it.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_state.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {

// Tensor cores. A block has up to 32 (row, head) pairs, 16 to a tile, and takes 32 keys at a time
// from shared memory. A warp owns a tile of pairs and kSteps * 16 columns of the cache's rows: it
// multiplies them with the queries' same columns, which it keeps in registers; the warps' partial
// scores are added up in order, weighed, and each warp adds its own columns of the keys' latents to
// the output, which it keeps in registers too.
constexpr int kKeys = 32, kMaxWarps = 18;
constexpr int kScoreStride = kKeys + 8;   // floats: a quarter warp's rows fall on different banks
constexpr int kWeightStride = kKeys + 8;  // halves, likewise
struct Fragment {
  unsigned r[4];
};
// Four 8 x 8 matrices of halves; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline Fragment load_fragment(const __half* row) {
  Fragment f;
  load_matrices(f.r, shared_address(row));
  return f;
}
__device__ inline Fragment load_transposed(const __half* row) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
               : "r"(shared_address(row)));
  return f;
}
// c (16 x 8) += a (16 x 16) b (16 x 8), of binary16
__device__ inline void multiply_add(float (&c)[4], const Fragment& a, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}
// c (16 x 16, in halves of 8 columns) += a b, of what is in two halves: all but low times low,
// which float32 would not hold either. Sums that do not wait for each other follow each other.
template <bool kHalf>
__device__ inline void multiply_add(float (*c)[4], const Fragment& a_high, const Fragment& a_low,
                                    const Fragment& b_high, const Fragment& b_low) {
#pragma unroll
  for (int term = 0; term < (kHalf ? 1 : 3); ++term)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Fragment& b = term == 1 ? b_low : b_high;
      multiply_add(c[h], term == 2 ? a_low : a_high, b.r[2 * h], b.r[2 * h + 1]);
    }
}

// A key's values and 8 more: an odd number of 16 bytes, so that eight keys fall on different banks.
template <bool kHalf>
__host__ __device__ constexpr int key_stride(int width) {
  return (kHalf ? width : 2 * width) + 8;
}

// What a block shares, one behind the other.
template <int kPairTiles, bool kHalf>
struct Shared {
  static constexpr int kPairs = 16 * kPairTiles, kPlanes = kHalf ? 1 : 2;
  __device__ Shared(void* at, int width, int n_slabs)
      : arrivals(static_cast<std::uint64_t*>(at)),
        keys(static_cast<__half*>(at) + 8),
        weights(keys + 2 * kKeys * key_stride<kHalf>(width)),
        scores(reinterpret_cast<float*>(weights + kPlanes * kPairs * kWeightStride)),
        largest(scores + n_slabs * kPairs * kScoreStride),
        sum(largest + kPairs),
        keep(sum + kPairs),
        past_largest(keep + kPairs),
        past_sum(past_largest + kPairs),
        n_keys(reinterpret_cast<int*>(past_sum + kPairs)),
        index(n_keys + kPairs) {}
  static constexpr std::size_t bytes(int width, int n_slabs) {
    return sizeof(__half) * static_cast<std::size_t>(8 + 2 * kKeys * key_stride<kHalf>(width) +
                                                     kPlanes * kPairs * kWeightStride) +
           sizeof(float) * static_cast<std::size_t>(n_slabs * kPairs * kScoreStride + 7 * kPairs);
  }
  std::uint64_t* arrivals;         // (2 buffers)
  __half* keys;                    // (2 buffers, kKeys, key_stride): high halves, low halves
  __half* weights;                 // (kPlanes, kPairs, kWeightStride)
  float* scores;                   // (slabs, kPairs, kScoreStride)
  float *largest, *sum, *keep;     // (kPairs): of the split so far; what its past is multiplied by
  float *past_largest, *past_sum;  // (kPairs): of the splits before
  int* n_keys;                     // (kPairs), 0 where there is no pair
  int* index;                      // (kPairs): in (n_rows, n_heads)
};

template <int kSteps, int kPairTiles, bool kHalf>
__global__ void __launch_bounds__(32 * kMaxWarps, 1)
    attend_tiled(MlaAttentionCuda a, int n_head_tiles) {
  using Block = Shared<kPairTiles, kHalf>;
  constexpr int kPairs = Block::kPairs, kPlanes = Block::kPlanes, kSlab = 16 * kSteps;
  extern __shared__ __align__(16) unsigned char bytes[];
  const int width = a.kv_lora + a.rope, n_slabs = width / kSlab, stride = key_stride<kHalf>(width);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int tile = warp / n_slabs, slab = warp % n_slabs * kSlab;  // first column
  const int group = lane / 4, pair_of_columns = lane % 4;  // as fragments are spread over lanes
  const Block s(bytes, width, n_slabs);

  // Which pairs: the heads from first_head on of each of the run's rows. Of what is read before the
  // launch ahead has ended, only the queries may be its.
  const int run = blockIdx.x / n_head_tiles, n_heads_here = min(a.n_heads, kPairs);
  const int first_head = static_cast<int>(blockIdx.x) % n_head_tiles * n_heads_here;
  const int first_row = a.run == nullptr ? run : __ldcg(a.run + run);
  const int end_row = a.run == nullptr ? first_row + 1 : __ldcg(a.run + run + 1);
  const KeysOfRow of_row(a, a.keys == nullptr ? end_row - 1 : first_row);
  const int n_keys = of_row.n, split_keys = mla_split_keys(a.n_heads, n_keys);
  const int first_key = a.parts == nullptr ? 0 : static_cast<int>(blockIdx.y) * split_keys,
            end_key = a.parts == nullptr ? n_keys : min(first_key + split_keys, n_keys);
  if (first_key >= end_key) return await_previous();

  const int n_warps = kPairTiles * n_slabs;
  if (threadIdx.x < 2) {
    init_arrivals(s.arrivals + threadIdx.x, n_warps);
    publish_barriers();
  }
  for (int i = threadIdx.x; i < kPairs; i += blockDim.x) {
    const int row = first_row + i / n_heads_here, head = first_head + i % n_heads_here;
    const bool is_pair = row < end_row && head < a.n_heads;
    s.n_keys[i] = !is_pair ? 0 : a.keys != nullptr ? n_keys : __ldcg(a.position + row) + 1;
    s.index[i] = row * a.n_heads + head;
    s.past_largest[i] = s.largest[i] = -INFINITY;
    s.past_sum[i] = s.sum[i] = 0;
  }
  __syncthreads();

  // A warp fetches every n_warps-th key of a tile, each by a lane: to ask for a copy takes long.
  const int own_key = warp + lane * n_warps;
  int position = of_row.position(first_key + own_key);  // looked up a tile ahead
  const auto fetch = [&](int at, int buffer) {
    const int n_bytes = kPlanes * width * 2;
    if (lane == 0)
      expect_arrivals(s.arrivals + buffer, (kKeys - warp + n_warps - 1) / n_warps * n_bytes);
    __syncwarp();
    if (own_key < kKeys)
      copy_later(s.keys + (buffer * kKeys + own_key) * stride, of_row.at(position), n_bytes,
                 s.arrivals + buffer);
    position = of_row.position(at + kKeys + own_key);
  };
  unsigned phases = 0;  // bit b: buffer b's
  fetch(first_key, 0);
  await_previous();
  let_next_begin();

  Fragment q_high[kSteps], q_low[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = tile * 16 + group + j % 2 * 8,
                column = slab + k * 16 + pair_of_columns * 2 + j / 2 * 8;
      float2 v = {0, 0};
      if (s.n_keys[i] > 0)
        v = *reinterpret_cast<const float2*>(a.q + static_cast<size_t>(s.index[i]) * width +
                                             column);
      const float scale = a.scale * kLog2e;
      const SplitHalf2 both = split_half2(v.x * scale, v.y * scale);
      q_high[k].r[j] = both.high;
      q_low[k].r[j] = both.low;
    }

  float out[2 * kSteps][4] = {};
  for (int at = first_key, buffer = 0; at < end_key; at += kKeys, buffer ^= 1) {
    await_arrivals(s.arrivals + buffer, phases >> buffer & 1u);
    phases ^= 1u << buffer;
    __syncthreads();  // nobody reads the keys before these
    if (at + kKeys < end_key) fetch(at + kKeys, buffer ^ 1);
    const __half* keys = s.keys + buffer * kKeys * stride;

#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      float score[2][4] = {};
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        const int offset =
            (n * 16 + lane / 16 * 8 + lane % 8) * stride + slab + k * 16 + lane / 8 % 2 * 8;
        const Fragment high = load_fragment(keys + offset);
        const Fragment low = kHalf ? high : load_fragment(keys + offset + width);
        multiply_add<kHalf>(score, q_high[k], q_low[k], high, low);
      }
      float* to = s.scores + (warp % n_slabs * kPairs + tile * 16 + group) * kScoreStride + n * 16 +
                  pair_of_columns * 2;
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          *reinterpret_cast<float2*>(to + r * 8 * kScoreStride + h * 8) = {score[h][2 * r],
                                                                           score[h][2 * r + 1]};
    }
    __syncthreads();

    // Sixteen lanes to a pair, two keys each.
    for (int i = threadIdx.x; i < kPairs * 16; i += blockDim.x) {
      const int pair = i / 16, first = i % 16 * 2;
      float2 v = {0, 0};
#pragma unroll 3
      for (int w = 0; w < n_slabs; ++w) {
        const float2 part =
            *reinterpret_cast<const float2*>(s.scores + (w * kPairs + pair) * kScoreStride + first);
        v.x += part.x;
        v.y += part.y;
      }
      const int n_seen = s.n_keys[pair] - at - first;
      const float before = s.largest[pair];
      float largest =
          fmaxf(before, fmaxf(n_seen > 0 ? v.x : -INFINITY, n_seen > 1 ? v.y : -INFINITY));
      for (int offset = 1; offset < 16; offset *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, offset));
      const float2 weight = {n_seen > 0 ? weight_of(v.x - largest + kWeightExponent) : 0,
                             n_seen > 1 ? weight_of(v.y - largest + kWeightExponent) : 0};
      float sum = weight.x + weight.y;
      for (int offset = 1; offset < 16; offset *= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      const SplitHalf2 halves = split_half2(weight.x, weight.y);
      __half* to = s.weights + pair * kWeightStride + first;
      *reinterpret_cast<unsigned*>(to) = halves.high;
      if (!kHalf) *reinterpret_cast<unsigned*>(to + kPairs * kWeightStride) = halves.low;
      __syncwarp();  // every lane has read s.largest
      if (first == 0) {
        const float keep = before == largest ? 1.0f : weight_of(before - largest);
        s.keep[pair] = keep;
        s.sum[pair] = fmaf(s.sum[pair], keep, sum);
        s.largest[pair] = largest;
      }
    }
    __syncthreads();

    if (slab < a.kv_lora) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float keep = s.keep[tile * 16 + group + r * 8];
        if (__all_sync(0xFFFFFFFFu, keep == 1.0f)) continue;
#pragma unroll
        for (int n = 0; n < 2 * kSteps; ++n) {
          out[n][2 * r] *= keep;
          out[n][2 * r + 1] *= keep;
        }
      }
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        const __half* row = s.weights + (tile * 16 + lane % 8 + lane / 8 % 2 * 8) * kWeightStride +
                            k * 16 + lane / 16 * 8;
        const Fragment w_high = load_fragment(row);
        const Fragment w_low = kHalf ? w_high : load_fragment(row + kPairs * kWeightStride);
#pragma unroll
        for (int n = 0; n < kSteps; ++n) {
          const int offset =
              (k * 16 + lane / 8 % 2 * 8 + lane % 8) * stride + slab + n * 16 + lane / 16 * 8;
          const Fragment high = load_transposed(keys + offset);
          const Fragment low = kHalf ? high : load_transposed(keys + offset + width);
          multiply_add<kHalf>(out + 2 * n, w_high, w_low, high, low);
        }
      }
    }

    const int next = at + kKeys;
    if (next < end_key && next % split_keys != 0) continue;
    // `out`, s.largest and s.sum are the split's, since the last barrier.
    const int split = at / split_keys;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (slab >= a.kv_lora) break;
      const int i = tile * 16 + group + r * 8;
      const bool sees = s.n_keys[i] > split * split_keys;
      const Fold fold(s.past_largest[i], s.largest[i]);
      const auto index = static_cast<size_t>(s.index[i]);
      float* to = (a.parts == nullptr ? a.out + index * a.kv_lora
                                      : a.parts + (index * gridDim.y + split) * a.kv_lora) +
                  slab + first_of_four();
#pragma unroll
      for (int n = 0; n < kSteps; ++n) {
        float4 v = four_columns({out[2 * n][2 * r], out[2 * n][2 * r + 1]},
                                {out[2 * n + 1][2 * r], out[2 * n + 1][2 * r + 1]});
        auto& values = *reinterpret_cast<float4*>(to + n * 16);
        if (!sees) continue;
        if (a.parts == nullptr && split > 0) v = folded(fold, values, v);
        values = v;
      }
#pragma unroll
      for (int n = 0; n < 2 * kSteps; ++n) out[n][2 * r] = out[n][2 * r + 1] = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kPairs; i += blockDim.x) {
      if (s.n_keys[i] > split * split_keys) {
        if (a.parts != nullptr)
          split_states(a, gridDim.y)[static_cast<size_t>(s.index[i]) * gridDim.y + split] = {
              s.largest[i], s.sum[i]};
        const Fold fold(s.past_largest[i], s.largest[i]);
        s.past_sum[i] = fold(s.past_sum[i], s.sum[i]);
        s.past_largest[i] = fold.largest;
      }
      s.largest[i] = -INFINITY;
      s.sum[i] = 0;
    }
  }
  if (a.parts != nullptr) return;
  __syncthreads();
  if (slab >= a.kv_lora) return;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = tile * 16 + group + r * 8;
    if (s.n_keys[i] == 0) continue;
    float* to = a.out + static_cast<size_t>(s.index[i]) * a.kv_lora + slab + first_of_four();
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
      auto& values = *reinterpret_cast<float4*>(to + n * 16);
      values = divided(values, s.past_sum[i]);
    }
  }
}

}  // namespace assay::kernels
