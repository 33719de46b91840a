// What the warpgroups of latent attention in clusters (mla_attention_cluster.cuh) share, and how
// they give each other scores and weights through shared memory.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {

// A cluster of four blocks takes 64 heads of a row, and 64 keys at a time. A block owns 128 columns
// of the latents and 16 of the rope keys, so a byte of the cache goes to one multiprocessor, once.
// Its four warpgroups are a pipeline: one fetches those columns; the next has the queries in
// registers, multiplies them with the keys and gives each block its part of the scores of the 16
// heads that this block weighs; there the third adds the four blocks' parts, weighs, and gives all
// blocks the weights; the fourth adds the latents, weighed, to the output, which it keeps in
// registers.
struct Cluster {
  static constexpr int kBlocks = 4;
  enum Role { kFetches, kMultiplies, kWeighs, kAdds };  // a warpgroup's
  static constexpr int kThreads = 128 * 4;
  // Registers of a thread, once its role is known: all together 512.
  static constexpr int kFetching = 64, kMultiplying = 200, kWeighing = 96, kAdding = 152;
  static constexpr int kHeads = 64, kOwnHeads = 16, kKeys = 64;
  static constexpr int kLatent = 128, kRope = 16;  // columns of a block
  static constexpr int kKvLora = kBlocks * kLatent, kAllRope = kBlocks * kRope;

  // Of the keys two swizzled tiles of 64 columns, each a plane of high halves and one of low
  // halves; behind all latents the rope keys, eight rows' 16 bytes after another. A plane follows
  // the other as rows do, so one product takes both.
  static constexpr int kTileBytes = kKeys * kTileRowBytes, kRopeBytes = kKeys * kRope * 2;
  static constexpr int stages(bool half) { return half ? 8 : 4; }
  static constexpr int planes(bool half) { return half ? 1 : 2; }
  static constexpr int stage_bytes(bool half) {
    return planes(half) * (2 * kTileBytes + kRopeBytes);
  }
  // A buffer of scores: four blocks' parts of 16 heads, 16 bytes to a lane and eight keys.
  static constexpr int kPartBytes = 8 * 32 * 16, kScoreBytes = kBlocks * kPartBytes;
  // A buffer of weights: of every 16 heads the planes, 16 bytes to a lane and 16 keys; behind them
  // all heads' HeadRound.
  static constexpr int kPlaneBytes = 4 * 32 * 16, kHeadRoundBytes = kHeads * 16;
  static constexpr int weight_bytes(bool half) {
    return planes(half) * kBlocks * kPlaneBytes + kHeadRoundBytes;
  }
  // The last stage first holds the queries, 16 heads' nine steps after another's.
  static constexpr int query_bytes(bool half) { return planes(half) * 9 * 32 * 16; }
  // How many groups of 16 keys' copies are on their way when the next are asked for. More than the
  // memory system takes at once hold up whatever else goes through the load and store unit.
  static constexpr int copies_ahead(bool half) { return half ? 7 : 3; }
  static constexpr int kRowBytes = 3 * 4 * kOwnHeads * 4;  // of AcrossWarps
  static constexpr int kBarriers = 2 * 8 + 3 * 2 + 2 * kBlocks;
  static constexpr int shared_bytes(bool half) {
    return 1024 + stages(half) * stage_bytes(half) + 2 * (kScoreBytes + weight_bytes(half)) +
           kRowBytes + 8 * kBarriers;
  }
};
static_assert(4 * Cluster::query_bytes(false) <= Cluster::stage_bytes(false));
static_assert(Cluster::stages(true) <= 8);

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ inline unsigned in_block(unsigned address, unsigned rank) {
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// Arrives at another block's barrier too, as 16 bytes.
__device__ inline void store_in_cluster(unsigned address, float4 v, unsigned barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(barrier)
      : "memory");
}
// At another block's barrier, once what has been read of the own block's shared memory is in
// registers: something has to have used it. Release at the block's scope does not order loads that
// are still on their way before an arrival elsewhere, which a GPU that another program takes over
// midway lets overtake them (docs/performance.md, "Attention's bits beside other programs"). At the
// cluster's scope it waits for all memory (MEMBAR.ALL.GPU), an eighth of the whole kernel's time.
__device__ inline void arrive_in_cluster(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// As await_arrivals, of what other blocks send: their bytes arrive with release at cluster scope,
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
// Without release, which would wait for copies on their way.
__device__ inline void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void await_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// All but the warpgroup that fetches.
__device__ inline void sync_others() { asm volatile("bar.sync 5, 384;" ::: "memory"); }
__device__ inline void sync_warpgroup(Cluster::Role role) {
  asm volatile("bar.sync %0, 128;" ::"r"(1 + static_cast<int>(role)) : "memory");
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
  static constexpr int kStages = Cluster::stages(kHalf);
  __device__ explicit Places(unsigned char* unaligned)
      : stages((shared_address(unaligned) + 1023) / 1024 * 1024),
        scores(stages + kStages * Cluster::stage_bytes(kHalf)),
        weights(scores + 2 * Cluster::kScoreBytes),
        rows(weights + 2 * Cluster::weight_bytes(kHalf)),
        barriers(rows + Cluster::kRowBytes) {}
  __device__ unsigned queries(int sixteen) const {
    return stages + (kStages - 1) * Cluster::stage_bytes(kHalf) +
           sixteen * Cluster::query_bytes(kHalf);
  }
  __device__ unsigned scores_of(int round) const {
    return scores + round % 2 * Cluster::kScoreBytes;
  }
  __device__ unsigned weights_of(int round) const {
    return weights + round % 2 * Cluster::weight_bytes(kHalf);
  }
  __device__ unsigned arrived(int stage) const { return barriers + stage * 8; }
  __device__ unsigned freed(int stage) const { return barriers + (8 + stage) * 8; }
  // Of two buffers.
  __device__ unsigned scores_given(int round) const { return barriers + (16 + round % 2) * 8; }
  __device__ unsigned weights_given(int round) const { return barriers + (18 + round % 2) * 8; }
  __device__ unsigned weights_free(int round) const { return barriers + (20 + round % 2) * 8; }
  // In the block that gives: of the one that weighs.
  __device__ unsigned scores_free(int round, int of_block) const {
    return barriers + (22 + round % 2 * Cluster::kBlocks + of_block) * 8;
  }
  // By one thread.
  __device__ void init(int arrivals) const {
    const auto init_some = [](unsigned first, int n, int n_arrivals) {
      for (int i = 0; i < n; ++i)
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(first + i * 8), "r"(n_arrivals)
                     : "memory");
    };
    init_some(arrived(0), kStages, 128);
    init_some(freed(0), kStages, 4 * arrivals);
    init_some(scores_given(0), 2, arrivals);
    init_some(weights_given(0), 2, 4 * arrivals);
    init_some(weights_free(0), 2, Cluster::kBlocks * arrivals);
    init_some(scores_free(0, 0), 2 * Cluster::kBlocks, arrivals == 1 ? 1 : 128);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  unsigned stages, scores, weights, rows, barriers;
};

// The phase in which a buffer of two has a round.
__device__ inline unsigned phase_of(int round) { return static_cast<unsigned>(round) / 2 % 2; }

// The blocks' parts of the scores, a round to a tile of keys, in two buffers. A warp that
// multiplies has 16 heads, and gives its part to the block that weighs these, when that block has
// said that it has taken what was there two rounds before. Only what somebody will wait for is
// said, so nothing arrives at a block that has ended.
template <bool kHalf>
class ScoreExchange {
 public:
  __device__ ScoreExchange(const Places<kHalf>& at, int block, int n_rounds, int arrivals)
      : at_(at), block_(block), n_rounds_(n_rounds), arrivals_(arrivals) {}
  __device__ void give(const float (&part)[32], int round) const {
    const int lane = lane_of_warp(), to_block = warp_of_group();
    const unsigned to = at_.scores_of(round) + block_ * Cluster::kPartBytes + lane * 16,
                   given = at_.scores_given(round), is_free = at_.scores_free(round, to_block);
    if (round >= 2) await_cluster_arrivals(is_free, phase_of(round - 2));
    const auto values = [&](int i) {
      return float4{part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3]};
    };
    if (to_block != block_) {
      const unsigned there = in_block(to, to_block), given_there = in_block(given, to_block);
#pragma unroll
      for (int i = 0; i < 8; ++i) store_in_cluster(there + i * 512, values(i), given_there);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) store_floats(to + i * 512, values(i));
      __syncwarp();
      if (lane == 0) expect_arrivals(given, (Cluster::kBlocks - 1) * Cluster::kPartBytes);
      if (lane > 0 && lane < arrivals_) arrive(given);
    }
  }
  // The sum of all parts, of this block's 16 heads and a warp's 16 keys.
  __device__ void take(float (&score)[8], int round) const {
    await_cluster_arrivals(at_.scores_given(round), phase_of(round));
    const unsigned from = at_.scores_of(round) + (2 * warp_of_group() * 32 + lane_of_warp()) * 16;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float4 sum = load_floats(from + j * 512);
#pragma unroll
      for (int b = 1; b < Cluster::kBlocks; ++b) {
        const float4 v = load_floats(from + b * Cluster::kPartBytes + j * 512);
        sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
      }
      score[4 * j] = sum.x;
      score[4 * j + 1] = sum.y;
      score[4 * j + 2] = sum.z;
      score[4 * j + 3] = sum.w;
    }
  }
  // By all that weigh, when all of them have used what they took: they have met at a barrier since.
  // Four lanes say so, one to a block.
  __device__ void release(int round) const {
    if (round + 2 >= n_rounds_) return;
    const unsigned is_free = at_.scores_free(round, block_);
    const int thread = static_cast<int>(threadIdx.x) % 128;
    if (arrivals_ == 1) {
      if (thread < Cluster::kBlocks) arrive_in_cluster(in_block(is_free, thread));
      return;
    }
    for (int i = 0; i < Cluster::kBlocks; ++i) arrive_in_cluster(in_block(is_free, i));
  }

 private:
  Places<kHalf> at_;
  int block_, n_rounds_, arrivals_;
};

// What is multiplied into a head's output before a round's latents are added. Of a split's last
// round: how the split goes to those before it (Fold), and what divides the last of them.
struct HeadRound {
  float keep, split_keep, split_fresh, sum;
};
// A round's weights as those who add to the output take them: two halves, as the left operand that
// the scores' places make them, 16 keys to a step.
template <bool kHalf>
struct Weights {
  unsigned high[4][4], low[4][4];
};

// Rounds go from the warps that weigh, 16 keys each, to those of every block that add the latents,
// 16 heads each, lane to lane, in two buffers. These are free when all blocks have said so, as
// in ScoreExchange.
template <bool kHalf>
class WeightExchange {
  static constexpr int kPlanes = Cluster::planes(kHalf);

 public:
  __device__ WeightExchange(const Places<kHalf>& at, int block, int n_rounds, int arrivals)
      : at_(at), block_(block), n_rounds_(n_rounds), arrivals_(arrivals) {}
  // Of a lane's two heads.
  __device__ void give(const float (&weight)[8], const HeadRound (&heads)[2], int round) const {
    float4 planes[2];
    const SplitHalf2 a = split_half2(weight[0], weight[1]), b = split_half2(weight[2], weight[3]),
                     c = split_half2(weight[4], weight[5]), d = split_half2(weight[6], weight[7]);
    planes[0] = as_floats(a.high, b.high, c.high, d.high);
    planes[1] = as_floats(a.low, b.low, c.low, d.low);
    const int lane = lane_of_warp(), warp = warp_of_group();
    const bool has_head = warp == 0 && lane % 4 < 2;  // one of them
    const bool first = lane % 4 == 0;
    const float4 head = {
        first ? heads[0].keep : heads[1].keep, first ? heads[0].split_keep : heads[1].split_keep,
        first ? heads[0].split_fresh : heads[1].split_fresh, first ? heads[0].sum : heads[1].sum};
    const unsigned to = of_heads(block_, round) + warp * 512 + lane * 16,
                   head_to = of_head(block_ * 16 + result_row(lane) + lane % 4 * 8, round),
                   given = at_.weights_given(round), is_free = at_.weights_free(round);
    if (round >= 2) await_cluster_arrivals(is_free, phase_of(round - 2));
#pragma unroll
    for (int i = 1; i < Cluster::kBlocks; ++i) {
      const int to_block = block_ ^ i;
      const unsigned there = in_block(to, to_block), given_there = in_block(given, to_block);
#pragma unroll
      for (int p = 0; p < kPlanes; ++p)
        store_in_cluster(there + p * Cluster::kPlaneBytes, planes[p], given_there);
      if (has_head) store_in_cluster(in_block(head_to, to_block), head, given_there);
    }
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) store_floats(to + p * Cluster::kPlaneBytes, planes[p]);
    if (has_head) store_floats(head_to, head);
    __syncwarp();
    constexpr int kBytes = (Cluster::kBlocks - 1) * kPlanes * 512,
                  kHeadBytes = (Cluster::kBlocks - 1) * Cluster::kOwnHeads * 16;
    if (lane == 0) expect_arrivals(given, kBytes + (warp == 0 ? kHeadBytes : 0));
    if (lane > 0 && lane < arrivals_) arrive(given);
  }
  __device__ void take(Weights<kHalf>& w, int round) const {
    await_cluster_arrivals(at_.weights_given(round), phase_of(round));
    const unsigned from = of_heads(warp_of_group(), round) + lane_of_warp() * 16;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      load_words(w.high[k], from + k * 512);
      if (!kHalf) load_words(w.low[k], from + Cluster::kPlaneBytes + k * 512);
    }
  }
  // Of a lane's head r, which is 0 or 1.
  __device__ HeadRound head(int r, int round) const {
    const float4 v =
        load_floats(of_head(warp_of_group() * 16 + result_row(lane_of_warp()) + 8 * r, round));
    return {v.x, v.y, v.z, v.w};
  }
  // When the products that take a round's weights have been issued: they have them in registers, so
  // its loads have come back. PTX does not say so; AttentionsBitsAreTheSameEveryTime does, beside
  // other programs.
  __device__ void release(int round) const {
    __syncwarp();
    const int to_block = warp_of_group();
    if (lane_of_warp() < arrivals_ && round + 2 < n_rounds_)
      arrive_in_cluster(in_block(at_.weights_free(round), to_block));
  }

 private:
  __device__ static float4 as_floats(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {__uint_as_float(x), __uint_as_float(y), __uint_as_float(z), __uint_as_float(w)};
  }
  __device__ unsigned of_heads(int sixteen, int round) const {
    return at_.weights_of(round) + sixteen * kPlanes * Cluster::kPlaneBytes;
  }
  __device__ unsigned of_head(int head, int round) const {
    return of_heads(Cluster::kBlocks, round) + head * 16;
  }

  Places<kHalf> at_;
  int block_, n_rounds_, arrivals_;
};

#endif

}  // namespace assay::kernels
