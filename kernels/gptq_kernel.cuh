// The kernel of gptq_cuda.cu. A block has a share of the tiles of 16 rows. One warp asks for its
// units by bulk copies, kWarps units of a tile a stage, into a ring in shared memory; each other
// warp multiplies one unit of a stage, and the warps' sums of a tile are added up in order.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/gptq_cuda.h"
#include "kernels/row_dot.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {

constexpr int kMostStages = 8;
constexpr int kMostTokens = 4;  // of a pass: two columns of mma.m16n8k16 each, high and low

struct GptqArgs {
  struct Matrix {
    const unsigned char* units;
    float* y;
    int n_rows, y_stride;
    int first_tile;  // of all tiles
  };
  // Tiles of several matrices follow each other; of swiglu's two they alternate.
  Matrix of[kMostProducts] = {};
  int n_matrices = 0, n_tiles = 0;  // tiles of all
  int n_shares = 0;                 // blocks that these are shared out to
  bool swiglu = false, accumulate = false;
  const float* x = nullptr;
  int x_stride = 0, n_cols = 0, n_tokens = 0;
  int tokens_of_pass = 0, n_stages = 0;
  int fold_tiles = 0, sums_tiles = 0;  // tiles whose sums are added up together, and kept
  int arrivals = 1;                    // of a warp that has read a stage
};

// How a product is launched: on n_shares blocks for each pass of tokens, of n_warps warps that
// multiply and one, with n_bytes of dynamic shared memory.
struct GptqLaunch {
  GptqArgs args;
  int n_warps, n_passes, n_bytes;
};
GptqLaunch plan_gptq(const GptqCudaArgs& a);
// Of a block that multiplies such a matrix, 16 or 8: the order of sums goes by it. 0 where not even
// one token fits shared_bytes.
int gptq_warps(const DeviceMatrix& m, std::size_t shared_bytes, bool swiglu);

template <int kBits, int kGroup>
struct GptqUnit {
  static constexpr int kLaneBytes = kGroup * kBits / 32;  // of one of a lane's two rows
  static constexpr int kPieceBytes = kLaneBytes < 16 ? kLaneBytes : 16;
  static constexpr int kPieces = kLaneBytes / kPieceBytes;
  static constexpr int kCodeBytes = kUnitRows * kGroup * kBits / 8;
  static constexpr int kBytes = kCodeBytes + kUnitRows * 4;
  static constexpr int kOctets = kGroup / 32;  // of a lane's columns
  using Piece = std::conditional_t<kPieceBytes == 16, uint4,
                                   std::conditional_t<kPieceBytes == 8, uint2, unsigned>>;
};

// Where things are in a block's shared memory, in bytes.
struct GptqShared {
  int ring, x, x_row, undo, sums, total;  // x_row: halves
};
__host__ __device__ constexpr GptqShared gptq_shared(int n_warps, int unit_bytes, int n_stages,
                                                     int n_cols, int group, int tokens,
                                                     int sums_tiles) {
  GptqShared s{};
  s.ring = 2 * kMostStages * 8;
  s.x = s.ring + n_stages * n_warps * unit_bytes;
  // Two rows that are read together, 64 bytes of each, lie on different banks.
  s.x_row = (n_cols + 63) / 64 * 64 + 32;
  s.undo = s.x + tokens * 2 * s.x_row * 2;
  s.sums = s.undo + tokens * (n_cols / group) * 4;
  s.total = s.sums + sums_tiles * n_warps * kUnitRows * tokens * 4;
  return s;
}

__device__ inline unsigned half2_bits(__half2 v) { return *reinterpret_cast<unsigned*>(&v); }
__device__ inline __half2 half2_of(unsigned v) { return *reinterpret_cast<__half2*>(&v); }

// A row's 1024 + z + 1, twice. Integers up to 1023 are the low bits of a binary16 from 1024 on.
struct RowZero {
  __half2 zero, high;  // high: of integers sixteen times as large, 960 - zero
  __device__ explicit RowZero(unsigned scale_word)
      : zero(half2_of((scale_word & 0xFFFF0000u) | scale_word >> 16)),
        high(__hsub2(__half2half2(__ushort_as_half(0x6380)), zero)) {}
};

// Eight columns of a row, less their zero point: in the order of the file for 8 bits, else columns
// 0, 4, 1, 5, 2, 6, 3, 7 (place_of_column).
__device__ inline void decode_octet(unsigned low, unsigned high, RowZero z, unsigned (&out)[4]) {
  constexpr unsigned k1024 = 0x64646464u;
  out[0] = half2_bits(__hsub2(half2_of(__byte_perm(low, k1024, 0x4140)), z.zero));
  out[1] = half2_bits(__hsub2(half2_of(__byte_perm(low, k1024, 0x4342)), z.zero));
  out[2] = half2_bits(__hsub2(half2_of(__byte_perm(high, k1024, 0x4140)), z.zero));
  out[3] = half2_bits(__hsub2(half2_of(__byte_perm(high, k1024, 0x4342)), z.zero));
}
__device__ inline unsigned masked_1024(unsigned word, unsigned mask) {
  unsigned out;  // (word & mask) | 1024 twice
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(word), "r"(mask), "r"(0x64006400u));
  return out;
}
__device__ inline void decode_octet(unsigned word, RowZero z, unsigned (&out)[4]) {
  const __half2 sixteenth = __half2half2(__ushort_as_half(0x2C00));
#pragma unroll
  for (int i = 0; i < 2; ++i, word >>= 8) {
    out[2 * i] = half2_bits(__hsub2(half2_of(masked_1024(word, 0x000F000Fu)), z.zero));
    // (1024 + 16 q) / 16 + 960 - (1024 + z + 1), exactly
    out[2 * i + 1] =
        half2_bits(__hfma2(half2_of(masked_1024(word, 0x00F000F0u)), sixteenth, z.high));
  }
}
template <int kBits>
constexpr int place_of_column(int i) {
  return kBits == 8 ? i : i < 4 ? 2 * i : 2 * (i - 4) + 1;
}

// sum (16, 8) += left (16, 16) · right (8, 16)ᵀ of binary16, in float32.
__device__ inline void multiply_add_halves(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2,
                                           unsigned a3, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

struct GptqTile {
  const GptqArgs::Matrix* matrix;
  int tile;  // of it
};
__device__ inline GptqTile tile_of(const GptqArgs& a, int i) {
  if (a.swiglu) return {a.of + i % 2, i / 2};
  int m = 0;
  while (m + 1 < a.n_matrices && a.of[m + 1].first_tile <= i) ++m;
  return {a.of + m, i - a.of[m].first_tile};
}

// The tiles [begin, end) of a block, and the stages of one of them.
struct GptqShare {
  int begin, end, stages_of_tile;
  __device__ int n_stages() const { return (end - begin) * stages_of_tile; }
};
__device__ inline GptqShare share_of(const GptqArgs& a, int n_groups, int n_warps) {
  const int together = a.swiglu ? 2 : 1;
  const long long n = a.n_tiles / together;
  return {static_cast<int>(n * blockIdx.x / a.n_shares) * together,
          static_cast<int>(n * (blockIdx.x + 1) / a.n_shares) * together,
          (n_groups + n_warps - 1) / n_warps};
}

// Of stage k, into its place in the ring.
template <class Unit, int kWarps>
__device__ inline void fetch_units(const GptqArgs& a, GptqShare share, int n_groups, int k,
                                   unsigned char* ring, std::uint64_t* full) {
  const GptqTile t = tile_of(a, share.begin + k / share.stages_of_tile);
  const int group = k % share.stages_of_tile * kWarps, slot = k % a.n_stages;
  const int n_bytes = min(kWarps, n_groups - group) * Unit::kBytes;
  expect_arrivals(full + slot, n_bytes);
  copy_later(ring + slot * kWarps * Unit::kBytes,
             t.matrix->units + (static_cast<size_t>(t.tile) * n_groups + group) * Unit::kBytes,
             n_bytes, full + slot);
}

// One token's x of the groups that this warp multiplies: halves in the order that lanes read them,
// (group, octet of a lane, quarter of the group, 8), and of each group what undoes its scaling.
template <int kBits, int kGroup, int kWarps>
__device__ inline void split_x(const float* x, int n_groups, __half* high, __half* low,
                               float* undo) {
  constexpr int kLanes = kGroup / 8, kAtOnce = 32 / kLanes;
  constexpr int kOctets = GptqUnit<kBits, kGroup>::kOctets;
  const int octet = threadIdx.x % kLanes;
  const int place = (octet % kOctets * 4 + octet / kOctets) * 8;
  for (int first = threadIdx.y; first < n_groups; first += kWarps * kAtOnce) {
    const int group = first + static_cast<int>(threadIdx.x) / kLanes * kWarps;
    const bool inside = group < n_groups;
    const float4* from = reinterpret_cast<const float4*>(x + group * kGroup + octet * 8);
    // Past L1: it may be read before the launch ahead has ended, and L1 may hold an older layer's.
    const float4 a = inside ? __ldcg(from) : float4{}, b = inside ? __ldcg(from + 1) : float4{};
    const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(v[i]));
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, offset));
    const HalfScale scaling = half_scale(largest);
    __align__(16) __half h[8], l[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const SplitHalf s = split_half(v[i] * scaling.scale);
      h[place_of_column<kBits>(i)] = s.high;
      l[place_of_column<kBits>(i)] = s.low;
    }
    if (!inside) continue;
    *reinterpret_cast<uint4*>(high + group * kGroup + place) = *reinterpret_cast<uint4*>(h);
    *reinterpret_cast<uint4*>(low + group * kGroup + place) = *reinterpret_cast<uint4*>(l);
    if (octet == 0) undo[group] = scaling.undo;
  }
}

// This lane's part of a unit times its group of x: rows lane / 4 and that plus 8, token lane % 4.
struct RowPair {
  float top, bottom;
};
template <int kBits, int kGroup>
__device__ inline RowPair multiply_unit(const unsigned char* unit, const __half* x, unsigned keep,
                                        float undo, RowPair sum) {
  using U = GptqUnit<kBits, kGroup>;
  const int lane = threadIdx.x;
  const unsigned* scales = reinterpret_cast<const unsigned*>(unit + U::kCodeBytes);
  const unsigned top = scales[lane / 4], bottom = scales[lane / 4 + 8];
  alignas(16) unsigned codes[2][U::kLaneBytes / 4];
#pragma unroll
  for (int p = 0; p < U::kPieces; ++p)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      reinterpret_cast<typename U::Piece*>(codes[half])[p] =
          *reinterpret_cast<const typename U::Piece*>(unit + ((p * 2 + half) * 32 + lane) *
                                                                 U::kPieceBytes);
  const RowZero zero_top(top), zero_bottom(bottom);
  float c[4] = {};
#pragma unroll
  for (int j = 0; j < U::kOctets; ++j) {
    uint4 b = *reinterpret_cast<const uint4*>(x + j * 32);
    b = {b.x & keep, b.y & keep, b.z & keep, b.w & keep};
    unsigned p[4], q[4];
    if constexpr (kBits == 8) {
      decode_octet(codes[0][2 * j], codes[0][2 * j + 1], zero_top, p);
      decode_octet(codes[1][2 * j], codes[1][2 * j + 1], zero_bottom, q);
    } else {
      decode_octet(codes[0][j], zero_top, p);
      decode_octet(codes[1][j], zero_bottom, q);
    }
    multiply_add_halves(c, p[0], q[0], p[1], q[1], b.x, b.y);
    multiply_add_halves(c, p[2], q[2], p[3], q[3], b.z, b.w);
  }
  // The scale first: with `undo` alone it could be below float32's normal numbers.
  const auto scale = [](unsigned word) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
  };
  return {fmaf(scale(top) * (c[0] + c[1]), undo, sum.top),
          fmaf(scale(bottom) * (c[2] + c[3]), undo, sum.bottom)};
}

// A row's sum over warps, in order; of_warp: of the first, others `stride` further each.
template <int kWarps>
__device__ inline float total_of_warps(const float* of_warp, int stride) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w * stride];
  return sum;
}

// By the multiplying warps: y of n tiles from `first` on; sums (tile, warp, row, token).
template <int kWarps>
struct FoldTiles {
  const GptqArgs& a;
  __device__ void operator()(const float* sums, int first, int n, int first_token,
                             int n_tokens) const {
    const int together = a.swiglu ? 2 : 1, of_tile = kUnitRows * n_tokens;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < n / together * of_tile; i += kWarps * 32) {
      const int tile = i / of_tile * together, in_tile = i % of_tile;
      const GptqTile t = tile_of(a, first + tile);
      const int row = t.tile * kUnitRows + in_tile / n_tokens;
      if (row >= t.matrix->n_rows) continue;
      const float* from = sums + tile * kWarps * of_tile + in_tile;
      float value = total_of_warps<kWarps>(from, of_tile);
      if (a.swiglu) value = silu(value) * total_of_warps<kWarps>(from + kWarps * of_tile, of_tile);
      const size_t token = first_token + in_tile % n_tokens;
      float& y = t.matrix->y[token * t.matrix->y_stride + row];
      y = a.accumulate ? y + value : value;
    }
  }
};

template <int kWarps>
__device__ inline void await_multiplying_warps() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * 32) : "memory");
}

// By a multiplying warp: its unit of every stage. fold: as FoldTiles, behind a barrier of these
// warps.
template <int kBits, int kGroup, int kWarps, class Fold>
__device__ inline void multiply_share(const GptqArgs& a, GptqShare share, unsigned char* shared,
                                      const GptqShared& at, int first_token, int n_tokens,
                                      std::uint64_t* full, std::uint64_t* empty, Fold& fold) {
  using U = GptqUnit<kBits, kGroup>;
  const int lane = threadIdx.x, warp = threadIdx.y, n_groups = a.n_cols / kGroup;
  const int column = lane / 4, token = lane % 4;  // of the fragments of x, and of the result
  const bool has_column = column < 2 * n_tokens;
  const __half* x = reinterpret_cast<const __half*>(shared + at.x) +
                    (has_column ? column : 0) * at.x_row + lane % 4 * 8;
  const float* undo =
      reinterpret_cast<const float*>(shared + at.undo) + (token < n_tokens ? token : 0) * n_groups;
  float* const sums = reinterpret_cast<float*>(shared + at.sums);
  const int of_tile = kWarps * kUnitRows * n_tokens;
  int k = 0, slot = 0, folded = share.begin, half = 0;  // half: of sums
  unsigned phase = 0;
  for (int tile = share.begin; tile < share.end; ++tile) {
    RowPair sum = {0, 0};
    for (int part = 0; part < share.stages_of_tile; ++part, ++k) {
      const int group = part * kWarps + warp;
      await_arrivals(full + slot, phase);
      __syncwarp();  // lanes may leave the wait one by one, and multiply together
      if (group < n_groups)
        sum = multiply_unit<kBits, kGroup>(shared + at.ring + (slot * kWarps + warp) * U::kBytes,
                                           x + group * kGroup, has_column ? 0xFFFFFFFFu : 0u,
                                           undo[group], sum);
      __syncwarp();
      if (lane < a.arrivals) arrive(empty + slot);
      if (++slot == a.n_stages) slot = 0, phase ^= 1;
    }
    float* to = sums + half * a.fold_tiles * of_tile + (tile - folded) * of_tile +
                warp * kUnitRows * n_tokens;
    if (token < n_tokens) {
      to[lane / 4 * n_tokens + token] = sum.top;
      to[(lane / 4 + 8) * n_tokens + token] = sum.bottom;
    }
    if (tile + 1 - folded < a.fold_tiles && tile + 1 < share.end) continue;
    // The other half is free again: who is here has read it, before its own part of this one.
    await_multiplying_warps<kWarps>();
    fold(sums + half * a.fold_tiles * of_tile, folded, tile + 1 - folded, first_token, n_tokens);
    folded = tile + 1;
    half ^= 1;
  }
}

// A block's part of a product: kWarps warps multiply, and a lane of another fetches.
template <int kBits, int kGroup, int kWarps>
class GptqBlock {
 public:
  using U = GptqUnit<kBits, kGroup>;

  __device__ GptqBlock(const GptqArgs& a, unsigned char* shared)
      : a_(a),
        shared_(shared),
        n_groups_(a.n_cols / kGroup),
        at_(gptq_shared(kWarps, U::kBytes, a.n_stages, a.n_cols, kGroup, a.tokens_of_pass,
                        a.sums_tiles)),
        full_(reinterpret_cast<std::uint64_t*>(shared)),
        empty_(full_ + kMostStages),
        share_(share_of(a, n_groups_, kWarps)) {}

  __device__ static bool multiplies() { return threadIdx.y < kWarps; }

  // By the warp that fetches, before the launch ahead has ended.
  __device__ void begin() const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < a_.n_stages; ++i) {
        init_arrivals(full_ + i);
        init_arrivals(empty_ + i, kWarps * a_.arrivals);
      }
      publish_barriers();
      for (int k = 0; k < min(a_.n_stages, share_.n_stages()); ++k) fetch(k);
    }
    __syncwarp();
  }
  // By the same warp. It waits for x, as stages are free only behind it.
  __device__ void keep_fetching() const {
    await_begun();
    if (threadIdx.x != 0) return;
    for (int k = a_.n_stages; k < share_.n_stages(); ++k) {
      await_arrivals(empty_ + k % a_.n_stages, (k / a_.n_stages - 1) & 1);
      fetch(k);
    }
  }
  __device__ int first_token() const { return static_cast<int>(blockIdx.y) * a_.tokens_of_pass; }
  __device__ int n_tokens() const { return min(a_.tokens_of_pass, a_.n_tokens - first_token()); }
  // By the warps that multiply, once x is there.
  __device__ void split() const {
    for (int t = 0; t < n_tokens(); ++t) {
      __half* high = reinterpret_cast<__half*>(shared_ + at_.x) + 2 * t * at_.x_row;
      split_x<kBits, kGroup, kWarps>(a_.x + static_cast<size_t>(first_token() + t) * a_.x_stride,
                                     n_groups_, high, high + at_.x_row,
                                     reinterpret_cast<float*>(shared_ + at_.undo) + t * n_groups_);
    }
    await_begun();
  }
  // Then.
  template <class Fold>
  __device__ void multiply(Fold& fold) const {
    multiply_share<kBits, kGroup, kWarps>(a_, share_, shared_, at_, first_token(), n_tokens(),
                                          full_, empty_, fold);
  }
  __device__ const GptqShare& share() const { return share_; }
  // All of it, by all warps.
  template <class Fold>
  __device__ void run(Fold fold) const {
    if (!multiplies()) begin();
    await_previous();
    let_next_begin();
    if (!multiplies()) return keep_fetching();
    split();
    multiply(fold);
  }

 private:
  // Of the warps that multiply and the one that fetches.
  __device__ static void await_begun() {
    asm volatile("bar.sync 2, %0;" ::"n"((kWarps + 1) * 32) : "memory");
  }
  __device__ void fetch(int k) const {
    fetch_units<U, kWarps>(a_, share_, n_groups_, k, shared_ + at_.ring, full_);
  }

  const GptqArgs& a_;
  unsigned char* const shared_;
  const int n_groups_;
  const GptqShared at_;
  std::uint64_t *const full_, *const empty_;
  const GptqShare share_;
};

// Grid: shares of the tiles, passes of tokens. dim3(32, kWarps + 1) threads.
template <int kBits, int kGroup, int kWarps>
__global__ void __launch_bounds__((kWarps + 1) * 32, 1)
    multiply_gptq(const __grid_constant__ GptqArgs a) {
  extern __shared__ __align__(128) unsigned char gptq_memory[];
  const GptqBlock<kBits, kGroup, kWarps> block(a, gptq_memory);
  block.run(FoldTiles<kWarps>{a});
}

}  // namespace assay::kernels
