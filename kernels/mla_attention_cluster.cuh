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

// Largest scores and sums of weights of a lane's two heads; of the sums the lane's own keys'.
struct RunningState {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Scores become weights; of a key that is not there, of the n_seen first: 0. What the past is
  // multiplied by goes to `keep`.
  __device__ void weigh(float (&score)[16], int n_seen, float (&keep)[2]) {
    const int column = result_column(lane_of_warp());
    if (n_seen < Cluster::kKeys)
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (i / 4 * 8 + column + i % 2 >= n_seen) score[i] = -INFINITY;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = largest[r];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        most = fmaxf(most, fmaxf(score[4 * j + 2 * r], score[4 * j + 2 * r + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
      keep[r] = largest[r] == most ? 1.0f : weight_of(largest[r] - most);
      largest[r] = most;
      float total = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float &x = score[4 * j + 2 * r], &y = score[4 * j + 2 * r + 1];
        x = weight_of(x - most + kWeightExponent);
        y = weight_of(y - most + kWeightExponent);
        total += x + y;
      }
      sum[r] = fmaf(sum[r], keep[r], total);
    }
  }
  // Of all four lanes that have the head.
  __device__ float whole_sum(int r) const {
    float s = sum[r];
    s += __shfl_xor_sync(0xFFFFFFFFu, s, 1);
    return s + __shfl_xor_sync(0xFFFFFFFFu, s, 2);
  }
};

// Which keys a cluster has: entries first … end - 1 of a row's n_keys.
struct Share {
  int n_keys, split_keys, first, end;
  __device__ bool ends_split(int next) const { return next >= end || next % split_keys == 0; }
};

// What the warpgroup with the queries does.
template <bool kHalf>
__device__ void multiply_keys(const Share& share, const Places<kHalf>& at, int block,
                              int arrivals) {
  constexpr int kStages = Cluster::stages(kHalf);
  const Queries<kHalf> q[2] = {Queries<kHalf>(at.queries_of(0)), Queries<kHalf>(at.queries_of(1))};
  __syncthreads();  // the stages that held them are free
  const GroupStages<kHalf> keys[2] = {{at.stages_of(0)}, {at.stages_of(1)}};
  const ScoreExchange exchange(at, block ^ 1, arrivals);
  await_cluster();  // the other block's barriers are there
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    const int stage = round % kStages;
    await_arrivals(at.arrived(stage), round / kStages % 2);
    float part[kHalf ? 16 : 32];
#pragma unroll
    for (float& v : part) v = 0;
    hold(part);
    begin_products();
#pragma unroll
    for (int g = 0; g < 2; ++g)
#pragma unroll
      for (int k = 0; k < Queries<kHalf>::kSteps; ++k) {
        multiply_rows(part, q[g].high[k], keys[g].columns(stage, k));
        if constexpr (!kHalf) multiply_rows(part, q[g].low[k], keys[g].columns(stage, k));
      }
    close_products();
    await_products<0>();
    hold(part);
    float sum[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      sum[i] = part[i];
      if constexpr (!kHalf) sum[i] += part[16 + i];
    }
    exchange.give(sum, round);
  }
}

// What the warpgroup that weighs does.
template <bool kHalf, bool kParts>
__device__ void weigh_keys(const MlaAttentionCuda& a, const Share& share, const Places<kHalf>& at,
                           const HeadsOfLane& heads, int block, int arrivals) {
  __syncthreads();
  const ScoreExchange exchange(at, block ^ 1, arrivals);
  const WeightSlots<kHalf> slots(at, arrivals);
  await_cluster();
  RunningState state;
  float past_largest[2] = {-INFINITY, -INFINITY}, past_sum[2] = {0, 0};  // of the splits before
  int round = 0;
  for (int first = share.first; first < share.end; first += Cluster::kKeys, ++round) {
    float score[16], keep[2];
    exchange.take(score, round);
    state.weigh(score, share.n_keys - first, keep);
    SplitEnd end = {};
    if (share.ends_split(first + Cluster::kKeys)) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float sum = state.whole_sum(r);
        const Fold fold(past_largest[r], state.largest[r]);
        if (kParts && block == 0 && threadIdx.x % 4 == 0 && heads.has(r))
          split_states(a, gridDim.y)[heads.index(r) * gridDim.y + first / share.split_keys] = {
              state.largest[r], sum};
        past_largest[r] = fold.largest;
        past_sum[r] = fold(past_sum[r], sum);
        end.keep[r] = fold.keep;
        end.fresh[r] = fold.fresh;
        end.sum[r] = past_sum[r];
      }
      state = RunningState();
    }
    slots.give(score, keep, end, round);
  }
}

// The output of a split, 64 heads by 128 columns, to a part, or folded into what a.out has of those
// before it.
template <bool kParts>
__device__ void write_split(const MlaAttentionCuda& a, const HeadsOfLane& heads, int global_group,
                            const float (&out)[64], const SplitEnd& end, int split, bool is_end) {
  constexpr int kAtOnce = 2;  // pieces of the past on their way
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool has = heads.has(r), adds = !kParts && split > 0;
    float* to = (kParts ? a.parts + (heads.index(r) * gridDim.y + split) * Cluster::kKvLora
                        : a.out + heads.index(r) * Cluster::kKvLora) +
                global_group * Cluster::kLatent + first_of_four();
    const auto add = [&](float past, float v) { return fmaf(v, end.fresh[r], past * end.keep[r]); };
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
        if (!kParts && is_end) v = divided(v, end.sum[r]);
        if (has) *reinterpret_cast<float4*>(to + (first + i) * 16) = v;
      }
    }
  }
}

// What a warpgroup with columns of the output does, the first tiles of keys being on their way.
template <bool kHalf, bool kParts>
__device__ void add_latents(const MlaAttentionCuda& a, const Share& share, const Places<kHalf>& at,
                            const HeadsOfLane& heads, int global_group,
                            const GroupKeys<kHalf>& keys, int arrivals) {
  constexpr int kKeys = Cluster::kKeys, kStages = Cluster::stages(kHalf);
  const int group = global_group % Cluster::kGroupsOfBlock;
  const WeightSlots<kHalf> slots(at, arrivals);
  // Those of a round have arrived, for this warp.
  const auto announce = [&](int round) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    arrive_as_warp(at.arrived(round % kStages), arrivals);
  };
  await_copies<Cluster::first_stages(kHalf) - 1>();
  announce(0);
  __syncthreads();  // the queries have left their stages
  keys.template fetch_stages<Cluster::first_stages(kHalf), kStages - 1>(share.first, share.end);
  await_copies<kStages - 3>();
  announce(1);
  await_cluster();

  float out[64];
#pragma unroll
  for (float& v : out) v = 0;
  auto ahead = keys.look_up(share.first + (kStages - 1) * kKeys);
  for (int first = share.first, round = 0; first < share.end; first += kKeys, ++round) {
    const int stage = round % kStages, next = first + kKeys;
    sync_warpgroup(group);  // nobody needs the stage before
    if (first + (kStages - 1) * kKeys < share.end)
      keys.fetch(ahead, (round + kStages - 1) % kStages);
    close_copies();
    ahead = keys.look_up(first + kStages * kKeys);
    await_copies<kStages - 3>();
    announce(round + 2);
    Round<kHalf> weights;
    slots.take(weights, round);
    if (kParts) slots.release(round);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (__all_sync(0xFFFFFFFFu, weights.keep[r] == 1.0f)) continue;
#pragma unroll
      for (int i = 0; i < 32; ++i) out[i / 2 * 4 + 2 * r + i % 2] *= weights.keep[r];
    }
    hold(out);
    begin_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      multiply_columns(out, weights.high[k], keys.latents(stage, 0, k));
      if (kHalf) continue;
      multiply_columns(out, weights.high[k], keys.latents(stage, 1, k));
      multiply_columns(out, weights.low[k], keys.latents(stage, 0, k));
    }
    close_products();
    await_products<0>();
    hold(out);
    if (kParts) continue;
    const bool is_last = share.ends_split(next);
    SplitEnd end;
    if (is_last) end = slots.take_end(round);
    slots.release(round);
    if (!is_last) continue;
    write_split<false>(a, heads, global_group, out, end, first / share.split_keys,
                       next >= share.end);
#pragma unroll
    for (float& v : out) v = 0;
  }
  if (kParts) write_split<true>(a, heads, global_group, out, {}, blockIdx.y, true);
}

// Grid: (two blocks to 64 heads of a row, splits, which go to a.parts, or 1).
template <bool kHalf, bool kParts>
__device__ void attend_in_cluster(const MlaAttentionCuda& a, int n_head_tiles, int arrivals) {
  extern __shared__ unsigned char unaligned[];
  const Places<kHalf> at(unaligned);
  const int block = blockIdx.x % Cluster::kBlocks, tile = blockIdx.x / Cluster::kBlocks,
            row = tile / n_head_tiles;
  const int group = threadIdx.x / 128, global_group = block * Cluster::kGroupsOfBlock + group;
  const bool adds = group < Cluster::kGroupsOfBlock;

  // Of what is read before the launch ahead has ended, only the queries may be its.
  const KeysOfRow of_row(a, row);
  Share share = {of_row.n, mla_split_keys(a.n_heads, of_row.n), 0, of_row.n};
  if (kParts) {
    share.first = static_cast<int>(blockIdx.y) * share.split_keys;
    share.end = min(share.first + share.split_keys, of_row.n);
  }
  if (share.first >= share.end) return await_previous();
  const GroupKeys<kHalf> keys(of_row, at.stages_of(group), global_group);
  if (adds) keys.template fetch_stages<0, Cluster::first_stages(kHalf)>(share.first, share.end);
  if (threadIdx.x == Cluster::kThreads - 1) at.init(arrivals);
  await_previous();
  let_next_begin();

  const HeadsOfLane heads(a, row, tile % n_head_tiles * Cluster::kHeads);
  if (adds) Queries<kHalf>::split(a, heads, global_group, at.queries_of(group));
  __syncthreads();  // queries and barriers are there
  arrive_at_cluster();
  if (adds) {
    limit_registers<Cluster::adding(kParts)>();
    add_latents<kHalf, kParts>(a, share, at, heads, global_group, keys, arrivals);
  } else if (group == Cluster::kGroupsOfBlock) {
    raise_registers<Cluster::kMultiplying>();
    multiply_keys(share, at, block, arrivals);
  } else {
    limit_registers<Cluster::weighing(kParts)>();
    weigh_keys<kHalf, kParts>(a, share, at, heads, block, arrivals);
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
