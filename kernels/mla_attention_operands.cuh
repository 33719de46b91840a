// Keys and queries of latent attention in clusters (mla_attention_cluster.cuh), as wgmma takes
// them.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_exchange.cuh"
#include "kernels/mla_attention_state.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/split_half.cuh"
#include "kernels/wgmma.cuh"

namespace assay::kernels {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A lane's two heads: of its warp's 16 the lane's group's and the eighth behind. r is 0 or 1.
struct HeadsOfLane {
  __device__ HeadsOfLane(const MlaAttentionCuda& a, int row, int first_of_warp)
      : n(a.n_heads),
        first(first_of_warp + result_row(lane_of_warp())),
        row_index(static_cast<size_t>(row) * a.n_heads) {}
  __device__ bool has(int r) const { return first + 8 * r < n; }
  __device__ size_t index(int r) const { return row_index + first + 8 * r; }
  int n, first;
  size_t row_index;
};

// A block's columns of the keys in shared memory, as products take them.
template <bool kHalf>
struct KeyStages {
  static constexpr int kPlanes = Cluster::planes(kHalf);
  __device__ unsigned at(int stage) const { return stages + stage * Cluster::stage_bytes(kHalf); }
  // 16 columns of them, all planes, as a product's right operand; step 8: the rope keys.
  __device__ std::uint64_t columns(int stage, int step) const {
    if (step == 8)
      return describe_tile(at(stage) + kPlanes * 2 * Cluster::kTileBytes, 128, 256,
                           TileLayout::kPlain);
    return describe_tile(at(stage) + step / 4 * kPlanes * Cluster::kTileBytes + step % 4 * 32, 16,
                         1024, TileLayout::kSwizzled);
  }
  // The latents of 16 of them, transposed.
  __device__ std::uint64_t latents(int stage, int plane, int step) const {
    return describe_tile(at(stage) + plane * Cluster::kTileBytes + step * 2048,
                         kPlanes * Cluster::kTileBytes, 1024, TileLayout::kSwizzled);
  }
  unsigned stages;
};
// Between what copies have brought to shared memory and products that read it.
__device__ inline void order_copies_before_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// What fetches them.
template <bool kHalf>
class FetchedKeys : public KeyStages<kHalf> {
  static constexpr int kPlanes = Cluster::planes(kHalf);
  static constexpr int kRows = Cluster::kKeys / 16;  // that a thread copies pieces of
 public:
  struct Positions {
    int of[kRows];
  };
  // are_read_once: they leave the second-level cache first, before queries and parts.
  __device__ FetchedKeys(const KeysOfRow& keys, unsigned stages, int block, bool are_read_once)
      : KeyStages<kHalf>{stages},
        keys_(keys),
        latent_(block * Cluster::kLatent),
        rope_(Cluster::kKvLora + block * Cluster::kRope) {
    if (are_read_once)
      asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
    else
      asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy_));
  }
  // Where the keys from `first` on lie: looked up well before they are fetched.
  __device__ Positions look_up(int first) const {
    Positions p;
#pragma unroll
    for (int i = 0; i < kRows; ++i) p.of[i] = keys_.position(first + row(i));
    return p;
  }
  // Arrives at the barrier when they are there.
  __device__ void fetch(const Positions& positions, int stage, unsigned arrived) const {
    constexpr int kWidth = Cluster::kKvLora + Cluster::kAllRope;
    const int piece = threadIdx.x % 8;
    const unsigned to = this->at(stage), rope_to = to + kPlanes * 2 * Cluster::kTileBytes;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const __half* from = keys_.at(positions.of[i]);
#pragma unroll
      for (int p = 0; p < kPlanes; ++p)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          copy(to + (tile * kPlanes + p) * Cluster::kTileBytes + piece_offset(row(i), piece),
               from + p * kWidth + latent_ + tile * kTileK + piece * kPieceValues);
      if (piece < 2 * kPlanes)
        copy(rope_to + piece / 2 * Cluster::kRopeBytes + row(i) / 8 * 256 + piece % 2 * 128 +
                 row(i) % 8 * 16,
             from + piece / 2 * kWidth + rope_ + piece % 2 * kPieceValues);
      close_copies();
      await_copies<Cluster::copies_ahead(kHalf)>();
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(arrived) : "memory");
  }

 private:
  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 128 / 8 + 16 * i; }

  __device__ void copy(unsigned to, const __half* from) const {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(from), "l"(policy_)
                 : "memory");
  }

  KeysOfRow keys_;
  int latent_, rope_;  // first columns
  std::uint64_t policy_;
};

// Queries, a block's columns of them, scaled and in two halves, as left operands: a warp's 16
// heads.
template <bool kHalf>
struct Queries {
  static constexpr int kSteps = 9;
  unsigned high[kSteps][4], low[kSteps][4];

  // From where split() left them.
  __device__ explicit Queries(unsigned shared) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      load_words(high[k], shared + k * 512 + lane_at(lane_of_warp(), k));
      if (!kHalf) load_words(low[k], shared + (kSteps + k) * 512 + lane_at(lane_of_warp(), k));
    }
  }
  // By all warpgroups but the one that fetches, which is the first. Two have 16 heads' latent
  // columns to two warps, four heads' whole lines at a time, one their columns of the rope keys:
  // all that a thread reads is on its way at once. Few instructions: they are not in any cache at
  // first.
  __device__ static void split(const MlaAttentionCuda& a, int row, int first_head, int block,
                               const Places<kHalf>& at) {
    constexpr int kWidth = Cluster::kKvLora + Cluster::kAllRope;
    const int warp = static_cast<int>(threadIdx.x) / 32 - 4, lane = lane_of_warp(), four = lane / 8;
    const bool is_rope = warp >= 8;
    const int sixteen = is_rope ? warp - 8 : warp / 2,
              head = is_rope ? lane / 4 : warp % 2 * 4 + four % 2 + four / 2 * 8,
              column = is_rope ? lane % 4 * 4 : lane % 8 * 4,
              index = first_head + sixteen * 16 + head;
    const float* from =
        a.q + (static_cast<size_t>(row) * a.n_heads + index) * kWidth +
        (is_rope ? Cluster::kKvLora + block * Cluster::kRope : block * Cluster::kLatent) + column;
    // Four columns of a head: two lanes' words.
    const int step = is_rope ? 8 : column / 16, of_lane = head % 8 * 4 + column % 8 / 2;
    const unsigned to = at.queries(sixteen) + step * 512 + head / 8 * 4 + column % 16 / 8 * 8;
    const unsigned first = to + lane_at(of_lane, step), second = to + lane_at(of_lane + 1, step);
    const float scale = a.scale * kLog2e;
    const auto load = [&](bool has, int offset) {
      return has ? *reinterpret_cast<const float4*>(from + offset) : float4{};
    };
    if (is_rope) {
      // And the eighth head behind.
      const float4 v = load(index < a.n_heads, 0), w = load(index + 8 < a.n_heads, 8 * kWidth);
      store(first, second, v, scale);
      store(first + 4, second + 4, w, scale);
      return;
    }
    // And the second head behind.
    float4 v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
      v[i] = load(index + i / 4 * 2 < a.n_heads, i / 4 * 2 * kWidth + i % 4 * 32);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int offset = i / 4 * 128 + i % 4 * 1024;
      store(first + offset, second + offset, v[i], scale);
    }
  }

 private:
  // Of every other step's words, pairs of lanes have each other's place: so the words that a warp
  // stores at once fall on different banks.
  __device__ static int lane_at(int lane, int step) { return (lane ^ step % 2) * 16; }
  __device__ static void store(unsigned first, unsigned second, float4 v, float scale) {
    const SplitHalf2 a = split_half2(v.x * scale, v.y * scale),
                     b = split_half2(v.z * scale, v.w * scale);
    const auto put = [](unsigned address, unsigned word) {
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
    };
    put(first, a.high);
    put(second, b.high);
    if (kHalf) return;
    put(first + kSteps * 512, a.low);
    put(second + kSteps * 512, b.low);
  }
};

#endif

}  // namespace assay::kernels
