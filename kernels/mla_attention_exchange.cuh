// What the warpgroups of latent attention in clusters (mla_attention_cluster.cuh) share, and how
// they give each other scores and weights through shared memory.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {

// A cluster of two blocks takes 64 heads of a row, and 32 keys at a time. A block owns 256 columns
// of the latents and 32 of the rope keys. Two of its warpgroups fetch half of those each and add
// their columns of the latents, weighed, to the output, which they keep in registers. A third has
// the queries in registers, multiplies them with the block's columns of the keys and gives its part
// of the scores to the fourth of both blocks, which adds the parts and weighs. So a byte of the
// cache goes to one multiprocessor, once, and no two of these steps wait for each other.
struct Cluster {
  static constexpr int kBlocks = 2, kGroupsOfBlock = 2;  // that add to the output
  static constexpr int kGroups = kBlocks * kGroupsOfBlock;
  static constexpr int kThreads = 128 * (kGroupsOfBlock + 2);
  // Registers of a thread, once its role is known.
  static constexpr int kMultiplying = 208;
  static constexpr int weighing(bool parts) { return parts ? 80 : 64; }
  static constexpr int adding(bool parts) { return parts ? 112 : 120; }
  static constexpr int kHeads = 64, kKeys = 32;
  static constexpr int kLatent = 128, kRope = 16;  // columns of a warpgroup
  static constexpr int kKvLora = kGroups * kLatent, kAllRope = kGroups * kRope;

  // Of a warpgroup's keys two swizzled tiles of 64 columns, each a plane of high halves and one of
  // low halves; behind all latents the rope keys, eight rows' 16 bytes after another. A plane
  // follows the other as rows do, so one product takes both.
  static constexpr int kTileBytes = kKeys * kTileRowBytes, kRopeBytes = kKeys * kRope * 2;
  static constexpr int stages(bool half) { return half ? 8 : 5; }
  static constexpr int stage_bytes(bool half) {
    return (half ? 1 : 2) * (2 * kTileBytes + kRopeBytes);
  }
  static constexpr int group_bytes(bool half) { return stages(half) * stage_bytes(half); }
  // The last stages first hold the queries.
  static constexpr int kQueryBytes = 2 * 9 * 32 * 16;  // a warp's: 9 steps' two halves
  static constexpr int first_stages(bool half) {
    return stages(half) - 4 * kQueryBytes / stage_bytes(half);
  }
  static constexpr int kScoreBytes = 4 * 32 * 16;            // a warp's, 64 bytes to a lane
  static constexpr int kWeightBytes = kScoreBytes + 8 * 32;  // and Round's other values
  static constexpr int kBarriers = 8 + 4 * 8;  // of stages; of two buffers' four warps
  static constexpr int shared_bytes(bool half) {
    return 1024 + kGroupsOfBlock * group_bytes(half) + 12 * kScoreBytes + 8 * kWeightBytes +
           8 * kBarriers;
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
// As await_arrivals, of what the other block sends: its bytes arrive with release at cluster scope,
// and only a wait that acquires there comes behind them.
__device__ inline void await_cluster_arrivals(unsigned barrier, unsigned phase) {
  unsigned done = 0;
  while (done == 0)
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
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

__device__ inline float4 load_floats(unsigned address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ inline void load_words(unsigned (&to)[4], unsigned address) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void store_floats(unsigned to, float4 v) {
  store_piece(to, uint4{__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z),
                        __float_as_uint(v.w)});
}
__device__ inline void store_words(unsigned to, const unsigned (&v)[4]) {
  store_piece(to, uint4{v[0], v[1], v[2], v[3]});
}
__device__ inline int warp_of_group() { return static_cast<int>(threadIdx.x) % 128 / 32; }
__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % 32; }
// Of a warpgroup's threads, where others give registers up.
template <int kN>
__device__ inline void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kN));
}
template <int kN>
__device__ inline void limit_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kN));
}
// For all of its lanes (arrivals_of_warp).
__device__ inline void arrive_as_warp(unsigned barrier, int arrivals) {
  __syncwarp();
  if (lane_of_warp() < arrivals) arrive(barrier);
}

// Where a block's shared memory has what.
template <bool kHalf>
struct Places {
  __device__ explicit Places(unsigned char* unaligned)
      : stages((shared_address(unaligned) + 1023) / 1024 * 1024),
        scores(stages + Cluster::kGroupsOfBlock * Cluster::group_bytes(kHalf)),
        weights(scores + 12 * Cluster::kScoreBytes),
        barriers(weights + 8 * Cluster::kWeightBytes) {}
  __device__ unsigned stages_of(int group) const {
    return stages + group * Cluster::group_bytes(kHalf);
  }
  __device__ unsigned queries_of(int group) const {
    return stages_of(group) + Cluster::first_stages(kHalf) * Cluster::stage_bytes(kHalf) +
           warp_of_group() * Cluster::kQueryBytes;
  }
  __device__ unsigned arrived(int stage) const { return barriers + stage * 8; }
  __device__ unsigned scores_given() const { return barriers + 8 * 8; }
  __device__ unsigned weights_given() const { return barriers + 16 * 8; }
  __device__ unsigned weights_taken() const { return barriers + 24 * 8; }
  __device__ unsigned scores_taken() const { return barriers + 32 * 8; }
  // By one thread.
  __device__ void init(int arrivals) const {
    const auto init_some = [](unsigned first, int n, int n_arrivals) {
      for (int i = 0; i < n; ++i)
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(first + i * 8), "r"(n_arrivals)
                     : "memory");
    };
    init_some(arrived(0), 8, 4 * Cluster::kGroupsOfBlock * arrivals);
    init_some(scores_given(), 8, arrivals);
    init_some(scores_taken(), 4, arrivals);
    init_some(weights_given(), 8, arrivals);
    init_some(weights_taken(), 8, Cluster::kGroupsOfBlock * arrivals);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  unsigned stages, scores, weights, barriers;
};

// The two blocks' parts of the scores, a round to a tile of keys: its own in one buffer, the
// other's in two. A warp that multiplies gives them to the warps of the same number that weigh,
// which have the same 16 heads, and each of its lanes to the lanes of the same number. It gives a
// round when its block has taken the one before, which came with the other's part; and that one was
// given when the other block had taken the one before it: so both buffers are free when their turn
// comes, and no part arrives at a block that has ended.
class ScoreExchange {
 public:
  template <bool kHalf>
  __device__ ScoreExchange(const Places<kHalf>& at, int other_block, int arrivals)
      : arrivals_(arrivals),
        slot_(at.scores + warp_of_group() * Cluster::kScoreBytes + lane_of_warp() * 16),
        given_(at.scores_given() + warp_of_group() * 8),
        taken_(at.scores_taken() + warp_of_group() * 8),
        other_block_(other_block) {}
  __device__ void give(const float (&part)[16], int round) const {
    if (round > 0) await_arrivals(taken_, (round - 1) % 2);
    const unsigned given = given_ + round % 2 * 32, given_there = in_block(given, other_block_),
                   there = in_block(others(round), other_block_);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 v = {part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3]};
      store_in_cluster(there + i * 512, v, given_there);
      store_floats(slot_ + i * 512, v);
    }
    __syncwarp();
    const int lane = lane_of_warp();
    if (lane == 0) expect_arrivals(given, Cluster::kScoreBytes);
    if (lane > 0 && lane < arrivals_) arrive(given);
  }
  // The sum of both parts, the same in both blocks.
  __device__ void take(float (&score)[16], int round) const {
    await_cluster_arrivals(given_ + round % 2 * 32, round / 2 % 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 x = load_floats(slot_ + i * 512), y = load_floats(others(round) + i * 512);
      score[4 * i] = x.x + y.x;
      score[4 * i + 1] = x.y + y.y;
      score[4 * i + 2] = x.z + y.z;
      score[4 * i + 3] = x.w + y.w;
    }
    arrive_as_warp(taken_, arrivals_);
  }

 private:
  __device__ unsigned others(int round) const {
    return slot_ + (1 + round % 2) * 4 * Cluster::kScoreBytes;
  }

  int arrivals_;
  unsigned slot_, given_, taken_;
  int other_block_;
};

// How a split's output of a lane's two heads goes to those before it (Fold), and what divides the
// last of them.
struct SplitEnd {
  float keep[2], fresh[2], sum[2];
};
// What a lane of those who add to the output needs of a round: the weights' two halves, as the left
// operand that the scores' places make them, 16 keys to a step, and what is multiplied into the
// output before them.
template <bool kHalf>
struct Round {
  unsigned high[2][4], low[2][4];
  float keep[2];
};

// Rounds go from a warp of those who score to the warps of the same number of those who add, lane
// to lane, in two buffers.
template <bool kHalf>
class WeightSlots {
 public:
  __device__ WeightSlots(const Places<kHalf>& at, int arrivals)
      : arrivals_(arrivals),
        slot_(at.weights + warp_of_group() * Cluster::kWeightBytes),
        given_(at.weights_given() + warp_of_group() * 8),
        taken_(at.weights_taken() + warp_of_group() * 8) {}
  __device__ void give(const float (&weight)[16], const float (&keep)[2], const SplitEnd& end,
                       int round) const {
    unsigned high[2][4], low[2][4];
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      const SplitHalf2 both = split_half2(weight[i], weight[i + 1]);
      high[i / 8][i % 8 / 2] = both.high;
      low[i / 8][i % 8 / 2] = both.low;
    }
    if (round >= 2) await_arrivals(taken_ + round % 2 * 32, (round / 2 + 1) % 2);
    const unsigned to = at(round) + lane_of_warp() * 16;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      store_words(to + k * 512, high[k]);
      if (!kHalf) store_words(to + (2 + k) * 512, low[k]);
    }
    if (lane_of_warp() % 4 == 0) {
      store_floats(of_heads(round), {keep[0], keep[1], end.sum[0], end.sum[1]});
      store_floats(of_heads(round) + 16, {end.keep[0], end.keep[1], end.fresh[0], end.fresh[1]});
    }
    arrive_as_warp(given_ + round % 2 * 32, arrivals_);
  }
  __device__ void take(Round<kHalf>& r, int round) const {
    await_arrivals(given_ + round % 2 * 32, round / 2 % 2);
    const unsigned from = at(round) + lane_of_warp() * 16;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      load_words(r.high[k], from + k * 512);
      if (!kHalf) load_words(r.low[k], from + (2 + k) * 512);
    }
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(r.keep[0]), "=f"(r.keep[1])
                 : "r"(of_heads(round))
                 : "memory");
  }
  // Of a split's last round.
  __device__ SplitEnd take_end(int round) const {
    const float4 a = load_floats(of_heads(round)), b = load_floats(of_heads(round) + 16);
    return {{b.x, b.y}, {b.z, b.w}, {a.z, a.w}};
  }
  __device__ void release(int round) const { arrive_as_warp(taken_ + round % 2 * 32, arrivals_); }

 private:
  __device__ unsigned at(int round) const { return slot_ + round % 2 * 4 * Cluster::kWeightBytes; }
  // The same for four lanes.
  __device__ unsigned of_heads(int round) const {
    return at(round) + Cluster::kScoreBytes + lane_of_warp() / 4 * 32;
  }

  int arrivals_;
  unsigned slot_, given_, taken_;
};

#endif

}  // namespace assay::kernels
