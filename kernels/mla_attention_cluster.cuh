// Latent attention of 64 heads on an H100's or H200's tensor cores; mla_attention_cuda.cu launches
// it.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_exchange.cuh"
#include "kernels/mla_attention_operands.cuh"
#include "kernels/mla_attention_state.cuh"
#include "kernels/wgmma.cuh"

namespace assay::kernels {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// What each of the four warps that weigh has of 16 heads, for all of them, which then combine it
// in the same order. Two places in turn, so that one barrier is enough.
class AcrossWarps {
 public:
  __device__ explicit AcrossWarps(unsigned shared) : shared_(shared) {}
  // Of a lane's two heads, the same in the four lanes that have them.
  template <class Combine>
  __device__ void combine(float (&own)[2], int place, const Combine& with) const {
    const int lane = lane_of_warp();
    const unsigned at = shared_ + place * 4 * kStride + result_row(lane) * 4;
    if (lane % 4 < 2)
      asm volatile("st.shared.f32 [%0], %1;" ::"r"(at + warp_of_group() * kStride + lane % 4 * 32),
                   "f"(lane % 4 == 0 ? own[0] : own[1])
                   : "memory");
    sync_warpgroup(Cluster::kWeighs);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float v[4];
#pragma unroll
      for (int w = 0; w < 4; ++w)
        asm volatile("ld.shared.f32 %0, [%1];"
                     : "=f"(v[w])
                     : "r"(at + w * kStride + r * 32)
                     : "memory");
      own[r] = with(with(with(v[0], v[1]), v[2]), v[3]);
    }
  }

 private:
  static constexpr int kStride = Cluster::kOwnHeads * 4;
  unsigned shared_;
};

// Largest scores and sums of weights of a lane's two heads; of the sums the lane's own keys'.
struct RunningState {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Of the scores of all warps, 16 keys each; those of keys that are not there, of the n_seen
  // first, become -inf.
  __device__ static void find_largest(float (&score)[8], int n_seen, const AcrossWarps& warps,
                                      int round, float (&most)[2]) {
    const int first = warp_of_group() * 16 + result_column(lane_of_warp());
    if (n_seen < Cluster::kKeys)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (i / 4 * 8 + first + i % 2 >= n_seen) score[i] = -INFINITY;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      most[r] = fmaxf(fmaxf(score[2 * r], score[2 * r + 1]),
                      fmaxf(score[4 + 2 * r], score[4 + 2 * r + 1]));
      most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFFu, most[r], 1));
      most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFFu, most[r], 2));
    }
    warps.combine(most, round % 2, [](float x, float y) { return fmaxf(x, y); });
  }
  // Scores, of which these are the largest, become weights. What the past is multiplied by goes to
  // `keep`.
  __device__ void weigh(float (&score)[8], const float (&most)[2], float (&keep)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float next = fmaxf(largest[r], most[r]);
      keep[r] = largest[r] == next ? 1.0f : weight_of(largest[r] - next);
      largest[r] = next;
      float total = 0;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float &x = score[4 * j + 2 * r], &y = score[4 * j + 2 * r + 1];
        x = weight_of(x - next + kWeightExponent);
        y = weight_of(y - next + kWeightExponent);
        total += x + y;
      }
      sum[r] = fmaf(sum[r], keep[r], total);
    }
  }
  // Of all lanes of all warps that have the head.
  __device__ void add_sums(const AcrossWarps& warps) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xFFFFFFFFu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xFFFFFFFFu, sum[r], 2);
    }
    warps.combine(sum, 2, [](float x, float y) { return x + y; });
  }
};

// Which keys a cluster has: entries first … end - 1 of a row's n_keys.
struct Share {
  int n_keys, split_keys, first, end;
  __device__ int n_rounds() const { return (end - first + Cluster::kKeys - 1) / Cluster::kKeys; }
  __device__ bool ends_split(int next) const { return next >= end || next % split_keys == 0; }
};

// What the warpgroup that fetches does, and does not wait for the launch ahead.
template <bool kHalf>
__device__ void fetch_keys(const Share& share, const Places<kHalf>& at,
                           const FetchedKeys<kHalf>& keys) {
  constexpr int kStages = Cluster::stages(kHalf), kLast = kStages - 1;
  auto positions = keys.look_up(share.first);
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    const int stage = round % kStages;
    const auto next = keys.look_up(first + Cluster::kKeys);
    // The last is freed once more, of the queries.
    if (round >= kLast)
      await_arrivals(at.freed(stage), (round / kStages + (stage == kLast ? 0 : 1)) % 2);
    keys.fetch(positions, stage, at.arrived(stage));
    positions = next;
  }
}

// What the warpgroup with the queries does.
template <bool kHalf>
__device__ void multiply_keys(const Share& share, const Places<kHalf>& at, int block,
                              int arrivals) {
  constexpr int kStages = Cluster::stages(kHalf);
  const Queries<kHalf> q(at.queries(warp_of_group()));
  arrive_as_warp(at.freed(kStages - 1), arrivals);
  const KeyStages<kHalf> keys{at.stages};
  const ScoreExchange<kHalf> exchange(at, block, share.n_rounds(), arrivals);
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    const int stage = round % kStages;
    await_arrivals(at.arrived(stage), round / kStages % 2);
    __syncwarp();  // lanes may leave the wait one by one
    order_copies_before_products();
    float part[kHalf ? 32 : 64];
#pragma unroll
    for (float& v : part) v = 0;
    hold(part);
    begin_products();
#pragma unroll
    for (int k = 0; k < Queries<kHalf>::kSteps; ++k) {
      multiply_rows(part, q.high[k], keys.columns(stage, k));
      // All but low times low, which is below float32's own rounding.
      if constexpr (!kHalf) multiply_first_rows(part, q.low[k], keys.columns(stage, k));
    }
    close_products();
    await_products<0>();
    hold(part);
    float sum[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      sum[i] = part[i];
      if constexpr (!kHalf) sum[i] += part[32 + i];
    }
    exchange.give(sum, round);
  }
}

// What the warpgroup that weighs does, of 16 heads.
template <bool kHalf, bool kParts>
__device__ void weigh_keys(const MlaAttentionCuda& a, const Share& share, const Places<kHalf>& at,
                           const HeadsOfLane& heads, int block, int arrivals) {
  const ScoreExchange<kHalf> scores(at, block, share.n_rounds(), arrivals);
  const WeightExchange<kHalf> weights(at, block, share.n_rounds(), arrivals);
  const AcrossWarps warps(at.rows);
  RunningState state;
  float past_largest[2] = {-INFINITY, -INFINITY}, past_sum[2] = {0, 0};  // of the splits before
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    float score[8], most[2], keep[2];
    scores.take(score, round);
    RunningState::find_largest(score, share.n_keys - first, warps, round, most);
    scores.release(round);
    state.weigh(score, most, keep);
    HeadRound of_heads[2] = {{keep[0], 0, 0, 0}, {keep[1], 0, 0, 0}};
    const bool ends = share.ends_split(first + Cluster::kKeys);
    if (!kParts && ends) {
      state.add_sums(warps);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Fold fold(past_largest[r], state.largest[r]);
        past_largest[r] = fold.largest;
        past_sum[r] = fold(past_sum[r], state.sum[r]);
        of_heads[r] = {keep[r], fold.keep, fold.fresh, past_sum[r]};
      }
      state = RunningState();
    }
    weights.give(score, of_heads, round);
  }
  if (!kParts) return;
  state.add_sums(warps);
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (warp_of_group() == 0 && lane_of_warp() % 4 == 0 && heads.has(r))
      split_states(a, gridDim.y)[heads.index(r) * gridDim.y + blockIdx.y] = {state.largest[r],
                                                                             state.sum[r]};
}

// The output of a split, 64 heads by 128 columns, to a part, or folded into what a.out has of those
// before it.
template <bool kParts>
__device__ void write_split(const MlaAttentionCuda& a, const HeadsOfLane& heads, int block,
                            const float (&out)[64], const HeadRound (&ends)[2], int split,
                            bool is_end) {
  constexpr int kAtOnce = 2;  // pieces of the past on their way
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool has = heads.has(r), adds = !kParts && split > 0;
    float* to = (kParts ? a.parts + (heads.index(r) * gridDim.y + split) * Cluster::kKvLora
                        : a.out + heads.index(r) * Cluster::kKvLora) +
                block * Cluster::kLatent + first_of_four();
    const HeadRound& end = ends[r];
    const auto add = [&](float past, float v) {
      return fmaf(v, end.split_fresh, past * end.split_keep);
    };
#pragma unroll
    for (int first = 0; first < 8; first += kAtOnce) {
      float4 past[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if (has && adds) past[i] = *reinterpret_cast<const float4*>(to + (first + i) * 16);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float* of = out + 8 * (first + i) + 2 * r;
        float4 v = four_columns({of[0], of[1]}, {of[4], of[5]});
        const float4& p = past[i];
        if (adds) v = {add(p.x, v.x), add(p.y, v.y), add(p.z, v.z), add(p.w, v.w)};
        if (!kParts && is_end) v = divided(v, end.sum);
        if (has) *reinterpret_cast<float4*>(to + (first + i) * 16) = v;
      }
    }
  }
}

// What the warpgroup that adds the latents does, of the block's columns.
template <bool kHalf, bool kParts>
__device__ void add_latents(const MlaAttentionCuda& a, const Share& share, const Places<kHalf>& at,
                            const HeadsOfLane& heads, int block, int arrivals) {
  constexpr int kStages = Cluster::stages(kHalf);
  const KeyStages<kHalf> keys{at.stages};
  const WeightExchange<kHalf> exchange(at, block, share.n_rounds(), arrivals);
  float out[64];
#pragma unroll
  for (float& v : out) v = 0;
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    const int stage = round % kStages, next = first + Cluster::kKeys;
    await_arrivals(at.arrived(stage), round / kStages % 2);
    __syncwarp();
    order_copies_before_products();
    Weights<kHalf> weights;
    exchange.take(weights, round);
    HeadRound of_heads[2] = {exchange.head(0, round), exchange.head(1, round)};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float keep = of_heads[r].keep;
      if (__all_sync(0xFFFFFFFFu, keep == 1.0f)) continue;
#pragma unroll
      for (int i = 0; i < 32; ++i) out[i / 2 * 4 + 2 * r + i % 2] *= keep;
    }
    hold(out);
    begin_products();
#pragma unroll
    for (int k = 0; k < Cluster::kKeys / 16; ++k) {
      multiply_columns(out, weights.high[k], keys.latents(stage, 0, k));
      if (kHalf) continue;
      multiply_columns(out, weights.high[k], keys.latents(stage, 1, k));
      multiply_columns(out, weights.low[k], keys.latents(stage, 0, k));
    }
    close_products();
    exchange.release(round);
    await_products<0>();
    hold(out);
    arrive_as_warp(at.freed(stage), arrivals);
    if (kParts || !share.ends_split(next)) continue;
    write_split<false>(a, heads, block, out, of_heads, first / share.split_keys, next >= share.end);
#pragma unroll
    for (float& v : out) v = 0;
  }
  if (kParts) write_split<true>(a, heads, block, out, {}, blockIdx.y, true);
}

// Grid: (four blocks to 64 heads of a row, splits, which go to a.parts, or 1).
template <bool kHalf, bool kParts>
__device__ void attend_in_cluster(const MlaAttentionCuda& a, int n_head_tiles, int arrivals) {
  extern __shared__ unsigned char unaligned[];
  const Places<kHalf> at(unaligned);
  const int block = blockIdx.x % Cluster::kBlocks, tile = blockIdx.x / Cluster::kBlocks,
            row = tile / n_head_tiles, first_head = tile % n_head_tiles * Cluster::kHeads;
  const auto role = static_cast<Cluster::Role>(threadIdx.x / 128);

  // Of what is read before the launch ahead has ended, only the queries may be its.
  const KeysOfRow of_row(a, row);
  Share share = {of_row.n, mla_split_keys(a.n_heads, of_row.n), 0, of_row.n};
  if (kParts) {
    share.first = static_cast<int>(blockIdx.y) * share.split_keys;
    share.end = min(share.first + share.split_keys, of_row.n);
  }
  if (share.first >= share.end) return await_previous();
  if (threadIdx.x == 0) at.init(arrivals);
  __syncthreads();
  arrive_at_cluster();
  if (role == Cluster::kFetches) {
    limit_registers<Cluster::kFetching>();
    // Under racecheck nobody passes the cluster's barrier before all have come to this wait.
    if (arrivals > 1) await_cluster();
    fetch_keys<kHalf>(share, at, FetchedKeys<kHalf>(of_row, at.stages, block, kParts));
    await_copies<0>();  // no warp ends before its copies
    __syncwarp();       // lanes may leave a wait one by one
    if (arrivals == 1) await_cluster();
    return await_previous();
  }
  await_cluster();  // the other blocks' barriers are there
  await_previous();
  let_next_begin();

  Queries<kHalf>::split(a, row, first_head, block, at);
  sync_others();
  if (role == Cluster::kMultiplies) {
    raise_registers<Cluster::kMultiplying>();
    multiply_keys<kHalf>(share, at, block, arrivals);
  } else if (role == Cluster::kWeighs) {
    limit_registers<Cluster::kWeighing>();
    const HeadsOfLane heads(a, row, first_head + block * Cluster::kOwnHeads);
    weigh_keys<kHalf, kParts>(a, share, at, heads, block, arrivals);
  } else {
    raise_registers<Cluster::kAdding>();
    const HeadsOfLane heads(a, row, first_head + warp_of_group() * 16);
    add_latents<kHalf, kParts>(a, share, at, heads, block, arrivals);
  }
}

#endif

template <bool kHalf, bool kParts>
__global__ void __cluster_dims__(Cluster::kBlocks, 1, 1) __launch_bounds__(Cluster::kThreads, 1)
    attend_clustered(MlaAttentionCuda a, int n_head_tiles, int arrivals) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  attend_in_cluster<kHalf, kParts>(a, n_head_tiles, arrivals);
#else
  __trap();  // by_cluster() asks for sm_90, which is built as sm_90a
#endif
}

}  // namespace assay::kernels
