// Latent attention of 64 heads on an H100's or H200's tensor cores; mla_attention_cuda.cu launches
// it.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_state.cuh"
#include "kernels/split_half.cuh"
#include "kernels/wgmma.cuh"

namespace assay::kernels {

// A cluster of two blocks takes 64 heads of a row, and 64 keys at a time. Each of its four
// warpgroups owns 128 columns of the latents and 16 of the rope keys: it fetches those of the keys,
// multiplies them with the queries' same columns, which it keeps in registers, gives its part of
// the scores to the other three, adds up theirs, weighs, and adds its own columns of the latents to
// the output, in registers too. So a byte of the cache goes to one multiprocessor, once.
struct Cluster {
  static constexpr int kBlocks = 2, kGroupsOfBlock = 2, kGroups = kBlocks * kGroupsOfBlock;
  static constexpr int kThreads = 128 * kGroupsOfBlock;
  static constexpr int kHeads = 64, kKeys = 32, kStages = 4;
  static constexpr int kLatent = 128, kRope = 16;  // columns of a warpgroup
  static constexpr int kKvLora = kGroups * kLatent, kAllRope = kGroups * kRope;

  // Of a warpgroup's keys, a plane of high halves and one of low halves: two swizzled tiles of 64
  // columns each; behind all latents the rope keys, eight rows' 16 bytes after another.
  static constexpr int kTileBytes = kKeys * kTileRowBytes, kRopeBytes = kKeys * kRope * 2;
  static constexpr int stage_bytes(bool half) {
    return (half ? 1 : 2) * (2 * kTileBytes + kRopeBytes);
  }
  static constexpr int group_bytes(bool half) { return kStages * stage_bytes(half); }
  static constexpr int kScoreBytes = kHeads * kKeys * 4;  // a warpgroup's parts
  static constexpr int kRoundBytes = kGroups * kScoreBytes;
  static constexpr int shared_bytes(bool half) {
    return 1024 + kGroupsOfBlock * group_bytes(half) + 2 * kRoundBytes + 8 * 8;
  }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ inline unsigned in_block(unsigned address, unsigned rank) {
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// Arrives at the other block's barrier too, as 16 bytes.
__device__ inline void store_in_cluster(unsigned address, float4 v, unsigned barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(barrier)
      : "memory");
}
__device__ inline void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void await_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ inline void sync_warpgroup(int group) {
  asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
}

// A warpgroup's keys in shared memory, kStages of 32.
template <bool kHalf>
class GroupKeys {
  static constexpr int kPlanes = kHalf ? 1 : 2, kRows = 2;  // rows that a thread copies pieces of
 public:
  struct Positions {
    int of[kRows];
  };
  __device__ GroupKeys(const KeysOfRow& keys, unsigned stages, int global_group)
      : keys_(keys),
        stages_(stages),
        latent_(global_group * Cluster::kLatent),
        rope_(Cluster::kKvLora + global_group * Cluster::kRope) {}
  // Where the keys from `first` on lie: looked up well before they are fetched.
  __device__ Positions look_up(int first) const {
    Positions p;
#pragma unroll
    for (int i = 0; i < kRows; ++i) p.of[i] = keys_.position(first + row(i));
    return p;
  }
  __device__ void fetch(const Positions& positions, int stage) const {
    constexpr int kWidth = Cluster::kKvLora + Cluster::kAllRope;
    const int piece = threadIdx.x % 8;
    const unsigned to = at(stage), rope_to = to + kPlanes * 2 * Cluster::kTileBytes;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const __half* from = keys_.at(positions.of[i]);
#pragma unroll
      for (int p = 0; p < kPlanes; ++p)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          copy_piece(to + (2 * p + tile) * Cluster::kTileBytes + piece_offset(row(i), piece),
                     from + p * kWidth + latent_ + tile * kTileK + piece * kPieceValues, 16);
      if (piece < 2 * kPlanes)
        copy_piece(rope_to + piece / 2 * Cluster::kRopeBytes + row(i) / 8 * 256 + piece % 2 * 128 +
                       row(i) % 8 * 16,
                   from + piece / 2 * kWidth + rope_ + piece % 2 * kPieceValues, 16);
    }
  }
  // 16 columns of them as a product's right operand; step 8: the rope keys.
  __device__ std::uint64_t columns(int stage, int plane, int step) const {
    if (step == 8)
      return describe_tile(
          at(stage) + kPlanes * 2 * Cluster::kTileBytes + plane * Cluster::kRopeBytes, 128, 256,
          TileLayout::kPlain);
    return describe_tile(at(stage) + (2 * plane + step / 4) * Cluster::kTileBytes + step % 4 * 32,
                         16, 1024, TileLayout::kSwizzled);
  }
  // The latents of 16 of them, transposed.
  __device__ std::uint64_t latents(int stage, int plane, int step) const {
    return describe_tile(at(stage) + 2 * plane * Cluster::kTileBytes + step * 2048,
                         Cluster::kTileBytes, 1024, TileLayout::kSwizzled);
  }

 private:
  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 128 / 8 + 16 * i; }
  __device__ unsigned at(int stage) const { return stages_ + stage * Cluster::stage_bytes(kHalf); }

  KeysOfRow keys_;
  unsigned stages_;
  int latent_, rope_;  // first columns
};

// The parts of the scores that the four warpgroups exchange, a round to a tile of keys, in two
// buffers. A warp exchanges with those of the same number, which have the same 16 heads, and each
// of its lanes with the lanes of the same number. Who has all parts of a round knows that the
// others have taken the round before, so a buffer is free when its turn comes, and no part arrives
// at a block that has ended.
class ScoreExchange {
  static constexpr int kChunks = 4, kChunkBytes = 32 * 16, kWarpBytes = kChunks * kChunkBytes;

 public:
  // arrivals: arrivals_of_warp()
  __device__ ScoreExchange(unsigned slots, unsigned barriers, int global_group, int arrivals)
      : arrivals_(arrivals),
        slots_(slots + warp() * kWarpBytes + threadIdx.x % 32 * 16),
        barriers_(barriers + warp() * 8),
        own_(global_group * Cluster::kScoreBytes),
        other_block_(global_group / Cluster::kGroupsOfBlock ^ 1) {}
  __device__ static void init(std::uint64_t* barriers, int arrivals) {
    for (int i = 0; i < 8; ++i) init_arrivals(barriers + i, Cluster::kGroupsOfBlock * arrivals);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ void give(const float (&part)[16], int round) const {
    const unsigned here = slots(round) + own_, there = in_block(here, other_block_),
                   barrier = barriers_ + round % 2 * 32,
                   barrier_there = in_block(barrier, other_block_);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float4 v = {part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3]};
      store_in_cluster(there + i * kChunkBytes, v, barrier_there);
      store_piece(here + i * kChunkBytes, uint4{__float_as_uint(v.x), __float_as_uint(v.y),
                                                __float_as_uint(v.z), __float_as_uint(v.w)});
    }
    __syncwarp();
    // For itself, and for the bytes of one of the other block's two warps.
    const int lane = threadIdx.x % 32;
    if (lane == 0) expect_arrivals(barrier, kWarpBytes);
    if (lane > 0 && lane < arrivals_) arrive(barrier);
  }
  // The sums, the warpgroups' parts in order.
  __device__ void take(float (&score)[16], int round) const {
    await_arrivals(barriers_ + round % 2 * 32, round / 2 % 2);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      float4 sum = load(slots(round) + i * kChunkBytes);
#pragma unroll
      for (int g = 1; g < Cluster::kGroups; ++g) {
        const float4 v = load(slots(round) + g * Cluster::kScoreBytes + i * kChunkBytes);
        sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
      }
      score[4 * i] = sum.x;
      score[4 * i + 1] = sum.y;
      score[4 * i + 2] = sum.z;
      score[4 * i + 3] = sum.w;
    }
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) % 128 / 32; }
  __device__ unsigned slots(int round) const { return slots_ + round % 2 * Cluster::kRoundBytes; }
  __device__ static float4 load(unsigned address) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
  }

  int arrivals_;
  unsigned slots_, barriers_, own_, other_block_;
};

// A lane's two heads: of its warp's 16, its group's and the eighth behind. r is 0 or 1.
struct HeadsOfLane {
  __device__ HeadsOfLane(const MlaAttentionCuda& a, int row, int first_head)
      : n(a.n_heads),
        first(first_head + static_cast<int>(threadIdx.x) % 128 / 32 * 16 +
              result_row(static_cast<int>(threadIdx.x) % 32)),
        row_index(static_cast<size_t>(row) * a.n_heads) {}
  __device__ bool has(int r) const { return first + 8 * r < n; }
  __device__ size_t index(int r) const { return row_index + first + 8 * r; }
  int n, first;
  size_t row_index;
};

// A warp's queries, its warpgroup's columns, scaled and in two halves, as left operands.
struct Queries {
  static constexpr int kSteps = 9, kRowBytes = Cluster::kLatent * 4;
  unsigned high[kSteps][4], low[kSteps][4];

  // By way of shared memory, where a warp writes its 16 heads' latent columns, one head after the
  // other: so few and whole lines are asked for.
  __device__ Queries(const MlaAttentionCuda& a, const HeadsOfLane& heads, int global_group,
                     unsigned shared) {
    constexpr int kWidth = Cluster::kKvLora + Cluster::kAllRope;
    const int lane = threadIdx.x % 32, row = result_row(lane), column = result_column(lane);
    const unsigned rows = shared + threadIdx.x % 128 / 32 * 16 * kRowBytes;
    const float* latent =
        a.q + heads.row_index * kWidth + global_group * Cluster::kLatent + 4 * lane;
    const float* rope = a.q + Cluster::kKvLora + global_group * Cluster::kRope + column;
    float4 v[16];
    float2 r[4];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int head = heads.first - row + i;
      v[i] = head < heads.n ? *reinterpret_cast<const float4*>(latent + head * kWidth) : float4{};
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
      r[j] = heads.has(j % 2)
                 ? *reinterpret_cast<const float2*>(rope + heads.index(j % 2) * kWidth + j / 2 * 8)
                 : float2{};
#pragma unroll
    for (int i = 0; i < 16; ++i)
      store_piece(rows + at(i, lane), uint4{__float_as_uint(v[i].x), __float_as_uint(v[i].y),
                                            __float_as_uint(v[i].z), __float_as_uint(v[i].w)});
    __syncwarp();
    const float scale = a.scale * kLog2e;
#pragma unroll
    for (int k = 0; k < kSteps; ++k)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2 x = r[j];
        if (k < 8)
          asm volatile(
              "ld.shared.v2.f32 {%0, %1}, [%2];"
              : "=f"(x.x), "=f"(x.y)
              : "r"(rows + at(row + j % 2 * 8, 4 * k + j / 2 * 2 + column / 4) + column % 4 * 4)
              : "memory");
        const SplitHalf2 both = split_half2(x.x * scale, x.y * scale);
        high[k][j] = both.high;
        low[k][j] = both.low;
      }
  }

 private:
  // Eight lanes read pieces of four rows at once, two of each, all in different banks.
  __device__ static unsigned at(int row, int piece) {
    return row * kRowBytes + ((piece ^ row % 4 * 2) << 4);
  }
};

// A weight's two halves, as the left operand that the scores' places make them: 16 keys to a step.
template <bool kHalf>
struct Weights {
  unsigned high[2][4], low[2][4];
};

// Largest scores and sums of weights of a lane's two heads; of the sums the lane's own keys'.
struct RunningState {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Scores become weights; of a key that is not there, of the n_seen first: 0. What the past is
  // multiplied by goes to `keep`.
  template <bool kHalf>
  __device__ void weigh(float (&score)[16], int n_seen, float (&keep)[2], Weights<kHalf>& w) {
    const int column = result_column(static_cast<int>(threadIdx.x) % 32);
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
        const float x = weight_of(score[4 * j + 2 * r] - most + kWeightExponent),
                    y = weight_of(score[4 * j + 2 * r + 1] - most + kWeightExponent);
        total += x + y;
        const SplitHalf2 both = split_half2(x, y);
        w.high[j / 2][j % 2 * 2 + r] = both.high;
        if (!kHalf) w.low[j / 2][j % 2 * 2 + r] = both.low;
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

// Grid: (two blocks to 64 heads of a row, splits, or 1 where a.parts is null).
template <bool kHalf>
__device__ void attend_in_cluster(const MlaAttentionCuda& a, int n_head_tiles, int arrivals) {
  extern __shared__ unsigned char unaligned[];
  const int block = blockIdx.x % Cluster::kBlocks, tile = blockIdx.x / Cluster::kBlocks,
            row = tile / n_head_tiles;
  const int group = threadIdx.x / 128, global_group = block * Cluster::kGroupsOfBlock + group;
  const unsigned base = (shared_address(unaligned) + 1023) / 1024 * 1024,
                 slots = base + Cluster::kGroupsOfBlock * Cluster::group_bytes(kHalf);
  auto* barriers = reinterpret_cast<std::uint64_t*>(
      unaligned + (slots - shared_address(unaligned)) + 2 * Cluster::kRoundBytes);

  // Of what is read before the launch ahead has ended, only the queries may be its.
  const KeysOfRow of_row(a, row);
  const int split_keys = mla_split_keys(a.n_heads, of_row.n),
            first = a.parts == nullptr ? 0 : static_cast<int>(blockIdx.y) * split_keys,
            end = a.parts == nullptr ? of_row.n : min(first + split_keys, of_row.n);
  if (first >= end) return await_previous();
  const GroupKeys<kHalf> keys(of_row, base + group * Cluster::group_bytes(kHalf), global_group);
  constexpr int kKeys = Cluster::kKeys, kAhead = Cluster::kStages - 1;
  typename GroupKeys<kHalf>::Positions ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) ahead[i] = keys.look_up(first + i * kKeys);
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (first + i * kKeys < end) keys.fetch(ahead[i], i);
    close_copies();
  }
  ahead[0] = keys.look_up(first + kAhead * kKeys);
  if (threadIdx.x == 0) ScoreExchange::init(barriers, arrivals);
  await_previous();
  let_next_begin();

  const HeadsOfLane heads(a, row, tile % n_head_tiles * Cluster::kHeads);
  const Queries q(a, heads, global_group, slots + group * Cluster::kRoundBytes);
  __syncwarp();
  arrive_at_cluster();  // nobody of its warps reads queries in the slots any more
  const ScoreExchange exchange(slots, slots + 2 * Cluster::kRoundBytes, global_group, arrivals);
  // Its own columns' part of the scores of the keys of a stage, once these have arrived.
  const auto score_keys = [&](int stage, float(&part)[16]) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    sync_warpgroup(group);
#pragma unroll
    for (float& v : part) v = 0;
    hold(part);
    begin_products();
#pragma unroll
    for (int k = 0; k < Queries::kSteps; ++k) {
      multiply_rows(part, q.high[k], keys.columns(stage, 0, k));
      if (kHalf) continue;
      multiply_rows(part, q.high[k], keys.columns(stage, 1, k));
      multiply_rows(part, q.low[k], keys.columns(stage, 0, k));
    }
    close_products();
  };

  float out[64];
  RunningState state, past;
#pragma unroll
  for (float& v : out) v = 0;
  {
    float part[16];
    await_copies<kAhead - 1>();
    score_keys(0, part);
    await_products<0>();
    hold(part);
    await_cluster();  // the other block's barriers and all slots are there
    exchange.give(part, 0);
  }
  for (int at = first, round = 0; at < end; at += kKeys, ++round) {
    const int stage = round % Cluster::kStages, next = at + kKeys;
    float part[16], score[16];
    if (next < end) {
      await_copies<kAhead - 2>();
      score_keys((round + 1) % Cluster::kStages, part);
    }
    exchange.take(score, round);
    if (next < end) {
      await_products<0>();
      hold(part);
      exchange.give(part, round + 1);
    }

    float keep[2];
    Weights<kHalf> weights;
    state.weigh(score, of_row.n - at, keep, weights);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (__all_sync(0xFFFFFFFFu, keep[r] == 1.0f)) continue;
#pragma unroll
      for (int i = 0; i < 32; ++i) out[i / 2 * 4 + 2 * r + i % 2] *= keep[r];
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
    // Since score_keys() nobody reads the stage before this one.
    if (at + kAhead * kKeys < end) keys.fetch(ahead[0], (round + kAhead) % Cluster::kStages);
    close_copies();
    ahead[0] = keys.look_up(at + (kAhead + 1) * kKeys);
    await_products<0>();
    hold(out);

    if (next < end && next % split_keys != 0) continue;
    // The split's end.
    const int split = at / split_keys;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = state.whole_sum(r);
      const Fold fold(past.largest[r], state.largest[r]);
      past.sum[r] = fold(past.sum[r], sum);
      past.largest[r] = fold.largest;
      float* to =
          (a.parts == nullptr ? a.out + heads.index(r) * Cluster::kKvLora
                              : a.parts + (heads.index(r) * gridDim.y + split) * Cluster::kKvLora) +
          global_group * Cluster::kLatent + first_of_four();
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float4 v = four_columns({out[8 * i + 2 * r], out[8 * i + 2 * r + 1]},
                                {out[8 * i + 4 + 2 * r], out[8 * i + 4 + 2 * r + 1]});
        if (!heads.has(r)) continue;
        auto& values = *reinterpret_cast<float4*>(to + i * 16);
        if (a.parts == nullptr) {
          if (split > 0) v = folded(fold, values, v);
          if (next >= end) v = divided(v, past.sum[r]);
        }
        values = v;
      }
      if (a.parts != nullptr && heads.has(r) && global_group == 0 && threadIdx.x % 4 == 0)
        split_states(a, gridDim.y)[heads.index(r) * gridDim.y + split] = {state.largest[r], sum};
    }
    state = RunningState();
#pragma unroll
    for (float& v : out) v = 0;
  }
}

#endif

// Registers that leave room for two blocks of fold_splits, which may then begin before it has
// ended.
template <bool kHalf>
__global__ void __cluster_dims__(Cluster::kBlocks, 1, 1) __maxnreg__(224)
    attend_clustered(MlaAttentionCuda a, int n_head_tiles, int arrivals) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  attend_in_cluster<kHalf>(a, n_head_tiles, arrivals);
#else
  __trap();  // by_cluster() asks for sm_90, which is built as sm_90a
#endif
}

}  // namespace assay::kernels
