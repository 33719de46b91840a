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

// A warpgroup's keys in shared memory, as products take them.
template <bool kHalf>
struct GroupStages {
  static constexpr int kPlanes = kHalf ? 1 : 2;
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

// What fetches them.
template <bool kHalf>
class GroupKeys : public GroupStages<kHalf> {
  static constexpr int kPlanes = GroupStages<kHalf>::kPlanes;
  static constexpr int kRows = 2;  // that a thread copies pieces of
 public:
  struct Positions {
    int of[kRows];
  };
  __device__ GroupKeys(const KeysOfRow& keys, unsigned stages, int global_group)
      : GroupStages<kHalf>{stages},
        keys_(keys),
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
    const unsigned to = this->at(stage), rope_to = to + kPlanes * 2 * Cluster::kTileBytes;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const __half* from = keys_.at(positions.of[i]);
#pragma unroll
      for (int p = 0; p < kPlanes; ++p)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          copy_piece(to + (tile * kPlanes + p) * Cluster::kTileBytes + piece_offset(row(i), piece),
                     from + p * kWidth + latent_ + tile * kTileK + piece * kPieceValues, 16);
      if (piece < 2 * kPlanes)
        copy_piece(rope_to + piece / 2 * Cluster::kRopeBytes + row(i) / 8 * 256 + piece % 2 * 128 +
                       row(i) % 8 * 16,
                   from + piece / 2 * kWidth + rope_ + piece % 2 * kPieceValues, 16);
    }
  }

  // The tiles from kFirst on of the keys first … end - 1, each where it comes first.
  template <int kFirst, int kEnd>
  __device__ void fetch_stages(int first, int end) const {
    Positions positions[kEnd - kFirst];
#pragma unroll
    for (int i = kFirst; i < kEnd; ++i) positions[i - kFirst] = look_up(first + i * Cluster::kKeys);
#pragma unroll
    for (int i = kFirst; i < kEnd; ++i) {
      if (first + i * Cluster::kKeys < end) fetch(positions[i - kFirst], i);
      close_copies();
    }
  }

 private:
  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 128 / 8 + 16 * i; }

  KeysOfRow keys_;
  int latent_, rope_;  // first columns
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
template <bool kHalf>
struct Queries {
  static constexpr int kSteps = 9, kRowBytes = Cluster::kLatent * 4;
  unsigned high[kSteps][4], low[kSteps][4];

  // From where split() left them.
  __device__ explicit Queries(unsigned shared) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      load_words(high[k], shared + k * 512 + lane_of_warp() * 16);
      if (!kHalf) load_words(low[k], shared + (kSteps + k) * 512 + lane_of_warp() * 16);
    }
  }
  // A warp writes its 16 heads' latent columns to shared memory, one head after the other, so that
  // few and whole lines are asked for, and then the operands to the same place.
  __device__ static void split(const MlaAttentionCuda& a, const HeadsOfLane& heads,
                               int global_group, unsigned shared) {
    constexpr int kWidth = Cluster::kKvLora + Cluster::kAllRope;
    const int lane = lane_of_warp(), row = result_row(lane), column = result_column(lane);
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
    for (int i = 0; i < 16; ++i) store_floats(shared + at(i, lane), v[i]);
    __syncwarp();
    const float scale = a.scale * kLog2e;
    unsigned high[kSteps][4], low[kSteps][4];
#pragma unroll
    for (int k = 0; k < kSteps; ++k)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2 x = r[j];
        if (k < 8)
          asm volatile(
              "ld.shared.v2.f32 {%0, %1}, [%2];"
              : "=f"(x.x), "=f"(x.y)
              : "r"(shared + at(row + j % 2 * 8, 4 * k + j / 2 * 2 + column / 4) + column % 4 * 4)
              : "memory");
        const SplitHalf2 both = split_half2(x.x * scale, x.y * scale);
        high[k][j] = both.high;
        low[k][j] = both.low;
      }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      store_words(shared + k * 512 + lane * 16, high[k]);
      if (!kHalf) store_words(shared + (kSteps + k) * 512 + lane * 16, low[k]);
    }
  }

 private:
  // Eight lanes read pieces of four rows at once, two of each, all in different banks.
  __device__ static unsigned at(int row, int piece) {
    return row * kRowBytes + ((piece ^ row % 4 * 2) << 4);
  }
};

#endif

}  // namespace assay::kernels
