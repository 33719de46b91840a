// The kernels of moe_cuda.cu for experts in partial sums (vq_sums.h). A block has one slice of
// columns of a token (of down: of a slot) and a share of the rows. It makes a table of all 256
// codewords times each of the slice's 128 sub-vectors, on tensor cores, and a row is then 128
// lookups. Results of slices go through global memory; who reads them adds them up in order
// (moe_sums_combine.cu those of down).
#pragma once

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/device_matrix.h"
#include "kernels/row_dot.cuh"
#include "kernels/split_half.cuh"
#include "kernels/vq_slices.h"
#include "kernels/vq_sums.h"

namespace assay::kernels {

constexpr int kSumsWarps = 32, kSumsThreads = 32 * kSumsWarps;
constexpr int kSumsStages = 2;  // of a warp's ring of units
constexpr int kMaxTopSums = 32;
constexpr int kSumsTableBytes = 256 * kSumsCodes * 4;

// Rows of results of one slice, one after the other.
__host__ __device__ constexpr int sums_padded(int n_rows) { return unit_tiles(n_rows) * 8; }

struct SumsArgs {
  const DeviceMatrix* experts;  // (n_experts, 3)
  const int* expert;            // (n_tokens, top_k)
  const float* x;               // (n_tokens, n_cols); down: what gate and up left in `sums`
  float* sums;  // (n_tokens, top_k, 2, n_slices, padded rows); down: (n_tokens, top_k, n_slices, …)
  const __half* codebook;
  int n_codes, top_k, n_rows, n_cols;
  int x_slices;  // of down: of gate and up
};

// In shared memory behind the table; the ring is behind it.
struct alignas(128) SumsShared {
  std::uint64_t full[kSumsWarps][kSumsStages];
  const unsigned char* source[2 * kMaxTopSums];  // a matrix's units of this slice
  float largest[16];
  uint2 right[16 * 32];  // x as operands: of a tile of eight sub-vectors, by lane
};
template <int kDim>
constexpr std::size_t sums_shared_bytes() {
  return kSumsTableBytes + sizeof(SumsShared) +
         std::size_t{kSumsWarps} * kSumsStages * sums_unit_bytes(kDim);
}

// A warp's tiles of its block: every kSumsWarps-th, of one matrix after the other.
struct SumsTiles {
  int per_matrix, tile, matrix = 0, left;

  __device__ SumsTiles(int n_rows, int n_matrices, int warp) : per_matrix(unit_tiles(n_rows)) {
    const long long n = static_cast<long long>(per_matrix) * n_matrices;
    const int first = static_cast<int>(n * blockIdx.y / gridDim.y) + warp,
              last = static_cast<int>(n * (blockIdx.y + 1) / gridDim.y);
    left = first < last ? (last - first + kSumsWarps - 1) / kSumsWarps : 0;
    tile = first;
    settle();
  }
  __device__ void next() {
    tile += kSumsWarps;
    --left;
    settle();
  }

 private:
  __device__ void settle() {
    while (tile >= per_matrix) tile -= per_matrix, ++matrix;
  }
};

template <bool kDown>
__device__ inline void find_sources(const SumsArgs& a, SumsShared& s, std::size_t slice_at) {
  const int i = threadIdx.x, slot = kDown ? blockIdx.z : blockIdx.z * a.top_k + i / 2;
  if (i >= (kDown ? 1 : 2 * a.top_k)) return;
  // Down reads the choice before it has waited for anybody: from L2, as other blocks do.
  const DeviceMatrix& m = a.experts[3 * __ldcg(a.expert + slot) + (kDown ? 2 : i % 2)];
  s.source[i] = static_cast<const unsigned char*>(m.values) + slice_at;
}

// By one lane, once all have read what the stage held: the source comes out of shared memory in
// order, so it arrives after the unit has been read.
template <int kDim>
__device__ inline void fetch_tile(SumsTiles& tiles, const SumsShared& s, unsigned char* to,
                                  std::uint64_t* full) {
  if (tiles.left == 0) return;
  const unsigned char* const volatile* source = s.source + tiles.matrix;
  expect_arrivals(full, sums_unit_bytes(kDim));
  copy_later(to, *source + static_cast<std::size_t>(tiles.tile) * sums_unit_bytes(kDim),
             sums_unit_bytes(kDim), full);
  tiles.next();
}

// Of two columns that this thread has of the slice, the first. Tiles of eight sub-vectors are
// numbered (i, b, j): that of operand column n is code i of lane 16 b + 4 (n / 2) + 2 j + n % 2, so
// that results of j = 0 and 1 are four lanes' one after the other.
template <int kDim>
__device__ inline int pair_column(int tile, int lane) {
  const int n = lane / 4, pair = kDim == 8 ? lane % 4 : lane % 2;
  const int owner = 16 * (tile / 2 % 2) + 4 * (n / 2) + 2 * (tile % 2) + n % 2;
  return (4 * owner + tile / 4) * kDim + 2 * pair;
}

// Results of a slice's columns [c, c + 1], all slices in order, with their loads under way at once.
__device__ inline float2 sum_pair(const float* first, int n_slices, int stride) {
  constexpr int kAhead = 12;
  float2 sum = {0, 0};
  for (int begin = 0; begin < n_slices; begin += kAhead) {
    float2 part[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (begin + i < n_slices)
        part[i] = __ldcg(
            reinterpret_cast<const float2*>(first + static_cast<std::size_t>(begin + i) * stride));
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (begin + i < n_slices) sum.x += part[i].x, sum.y += part[i].y;
  }
  return sum;
}

// silu(gate) * up, by two threads a pair: the upper half of the block adds up `up`. All threads
// wait.
__device__ inline float2 hidden_pair(const SumsArgs& a, SumsShared& s, int column) {
  const int half = threadIdx.x / 512, padded = sums_padded(a.n_cols);
  const std::size_t row = (static_cast<std::size_t>(blockIdx.z) * 2 + half) * a.x_slices;
  float2 v = {0, 0};
  if (column < a.n_cols) v = sum_pair(a.x + row * padded + column, a.x_slices, padded);
  float2* ups = reinterpret_cast<float2*>(s.right);
  if (half == 1) ups[threadIdx.x - 512] = v;
  __syncthreads();
  if (half == 1) return {0, 0};
  const float2 up = ups[threadIdx.x];
  return {silu(v.x) * up.x, silu(v.y) * up.y};
}

// The power of two for a slice's columns, of which the block's first 512 threads have a pair each.
// `largest_of_warp` (16) is scratch; all threads wait.
__device__ inline HalfScale slice_scale(float* largest_of_warp, float2 v) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x < 512) {
    float largest = fmaxf(fabsf(v.x), fabsf(v.y));
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2)
      largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, offset));
    if (lane == 0) largest_of_warp[warp] = largest;
  }
  __syncthreads();
  float largest = largest_of_warp[lane % 16];
#pragma unroll
  for (int offset = 1; offset < 16; offset *= 2)
    largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, offset));
  return half_scale(largest);
}

// x as operands. Returns what undoes its power of two; all threads wait. A NaN, or an infinity
// (whose low half is one), stays one.
template <int kDim>
__device__ inline float split_slice(uint2* right, float* largest_of_warp, float2 v) {
  const auto [scale, undo] = slice_scale(largest_of_warp, v);
  if (threadIdx.x < 512) {
    const SplitHalf2 x = split_half2(v.x * scale, v.y * scale);
    if constexpr (kDim == 8)
      right[threadIdx.x] = {x.high, x.low};
    else
      reinterpret_cast<unsigned*>(right)[threadIdx.x] = threadIdx.x % 4 < 2 ? x.high : x.low;
  }
  __syncthreads();
  return undo;
}

// sum (16 codewords, 8 sub-vectors) = codewords · x, both halves of x: of eight values a codeword
// stands twice in the left operand's columns, of four as well, in an instruction half as wide.
template <int kDim>
__device__ inline void multiply_codewords(float (&sum)[4], const unsigned (&word)[2],
                                          const uint2* right, int tile, int lane) {
  sum[0] = sum[1] = sum[2] = sum[3] = 0;
  if constexpr (kDim == 8) {
    const uint2 r = right[tile * 32 + lane];
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %4, %5}, {%6, %7}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(word[0]), "r"(word[1]), "r"(r.x), "r"(r.y));
  } else {
    const unsigned r = reinterpret_cast<const unsigned*>(right)[tile * 32 + lane];
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(word[0]), "r"(word[1]), "r"(r));
  }
}

// table: (2, 256, 2, 32) floats. Lane l's code 2 h + p of a row is looked up in column l of parts
// (h, ., p, .): it reads bank l whatever its codes are, and a code is byte 1 of an address. A warp
// has 16 codewords and kCodes of the four codes of all lanes: 64 / the block's warps.
template <int kDim, int kCodes>
__device__ inline void make_table(unsigned char* table, const uint2* right,
                                  const unsigned (&word)[2]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  // Neighbours of eight lanes store to both halves of a row: else four banks have eight of them.
  const bool odd = g % 2 != 0;
  unsigned char* row = table + (warp % 16 * 16 + g) * 256 + 16 * t;
#pragma unroll
  for (int p = 0; p < kCodes; ++p) {
    const int i = warp / 16 * kCodes + p;
    float sum[4][4];
#pragma unroll
    for (int n = 0; n < 4; ++n) multiply_codewords<kDim>(sum[n], word, right, 4 * i + n, lane);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float4 low = {sum[0][2 * r], sum[0][2 * r + 1], sum[1][2 * r], sum[1][2 * r + 1]},
                   high = {sum[2][2 * r], sum[2][2 * r + 1], sum[3][2 * r], sum[3][2 * r + 1]};
      unsigned char* to = row + i / 2 * 65536 + i % 2 * 128 + r * 8 * 256;
      *reinterpret_cast<float4*>(to + (odd ? 64 : 0)) = odd ? high : low;
      *reinterpret_cast<float4*>(to + (odd ? 0 : 64)) = odd ? low : high;
    }
  }
}

// The codewords of a lane's part of its warp's left operand, before anything is awaited.
template <int kDim>
__device__ inline void fetch_codewords(const __half* codebook, int n_codes, unsigned (&word)[2]) {
  const int lane = threadIdx.x % 32, pair = kDim == 8 ? lane % 4 : lane % 2;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int code = threadIdx.x / 32 % 16 * 16 + lane / 4 + 8 * r;
    word[r] = __ldg(
        reinterpret_cast<const unsigned*>(codebook + min(code, n_codes - 1) * kDim + 2 * pair));
  }
}

// What a lane needs of a unit.
template <int kDim>
struct SumsUnit {
  uint4 codes[2];
  __half2 scale;  // of dim 4 one, twice

  __device__ void read(const unsigned char* unit, int lane) {
    codes[0] = *reinterpret_cast<const uint4*>(unit + lane * 16);
    codes[1] = *reinterpret_cast<const uint4*>(unit + 512 + lane * 16);
    const unsigned char* scales = unit + kSumsCodeBytes + lane / kLanesOfScale * 16;
    if constexpr (kDim == 8)
      scale = *reinterpret_cast<const __half2*>(scales + sums_row(lane) / 2 * 4);
    else
      scale = __half2half2(*reinterpret_cast<const __half*>(scales + sums_row(lane) * 2));
  }
  static constexpr int kLanesOfScale = 32 / kDim;
};

// Lanes 0 to 7 return row sums_row(lane) of the unit: four lookups a lane, then lanes that share a
// scale, then the others.
template <int kDim>
__device__ inline float sum_unit(const unsigned char* table, const SumsUnit<kDim>& unit, int lane) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  const unsigned lane_bytes = 4u * static_cast<unsigned>(lane);
  const unsigned* words = reinterpret_cast<const unsigned*>(unit.codes);
  const auto at = [&](unsigned word, int q) {
    const unsigned entry = __byte_perm(word, lane_bytes, 0x5504u | static_cast<unsigned>(q) << 4);
    return *reinterpret_cast<const float*>(table + q / 2 * 65536 + q % 2 * 128 + entry);
  };
  float v[8];
#pragma unroll
  for (int j = 0; j < 8; ++j)
    v[j] = (at(words[j], 0) + at(words[j], 1)) + (at(words[j], 2) + at(words[j], 3));
#pragma unroll
  for (int j = 0; j < 4; ++j) v[j] += __shfl_xor_sync(kAll, v[j + 4], 1);
#pragma unroll
  for (int j = 0; j < 2; ++j) v[j] += __shfl_xor_sync(kAll, v[j + 2], 2);
  if constexpr (kDim == 8) {
    v[0] = __fmul_rn(v[0], __low2float(unit.scale));
    v[1] = __fmul_rn(v[1], __high2float(unit.scale));
  }
  v[0] += __shfl_xor_sync(kAll, v[1], 4);
  if constexpr (kDim == 4) v[0] = __fmul_rn(v[0], __low2float(unit.scale));
  v[0] += __shfl_xor_sync(kAll, v[0], 8);
  return v[0] + __shfl_xor_sync(kAll, v[0], 16);
}

template <int kDim, bool kDown>
__device__ inline void sum_rows_of_block(const SumsArgs& a, const unsigned char* table,
                                         SumsShared& s, unsigned char* ring, SumsTiles fetched,
                                         float undo) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, padded = sums_padded(a.n_rows);
  const int n_matrices = kDown ? 1 : 2 * a.top_k;
  float* out =
      a.sums +
      (static_cast<std::size_t>(blockIdx.z) * n_matrices * gridDim.x + blockIdx.x) * padded +
      sums_row(lane);
  const std::size_t matrix_rows = static_cast<std::size_t>(gridDim.x) * padded;
  int stage = 0;
  unsigned phase = 0;
  for (SumsTiles tiles(a.n_rows, n_matrices, warp); tiles.left > 0; tiles.next()) {
    await_arrivals(&s.full[warp][stage], phase);
    __syncwarp();  // lanes may leave the wait one by one
    SumsUnit<kDim> unit;
    unsigned char* const at = ring + stage * sums_unit_bytes(kDim);
    unit.read(at, lane);
    __syncwarp();
    if (lane == 0) fetch_tile<kDim>(fetched, s, at, &s.full[warp][stage]);
    const float sum = sum_unit<kDim>(table, unit, lane);
    if (lane < 8) out[tiles.matrix * matrix_rows + tiles.tile * kVqUnitRows] = sum * undo;
    if (++stage == kSumsStages) stage = 0, phase ^= 1;
  }
}

// Grid: slices, shares of the rows, tokens (down: slots). Shared memory: sums_shared_bytes.
template <int kDim, bool kDown>
__global__ void __launch_bounds__(kSumsThreads, 1)
    multiply_sums(const __grid_constant__ SumsArgs a) {
  extern __shared__ __align__(128) unsigned char table[];
  SumsShared& s = *reinterpret_cast<SumsShared*>(table + kSumsTableBytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned char* ring =
      table + kSumsTableBytes + sizeof(SumsShared) + warp * kSumsStages * sums_unit_bytes(kDim);
  const std::size_t slice_at = static_cast<std::size_t>(blockIdx.x) * unit_tiles(a.n_rows) *
                               static_cast<std::size_t>(sums_unit_bytes(kDim));
  if (lane == 0) {
    for (int i = 0; i < kSumsStages; ++i) init_arrivals(&s.full[warp][i]);
    publish_barriers();
  }
  unsigned word[2];
  fetch_codewords<kDim>(a.codebook, a.n_codes, word);
  SumsTiles fetched(a.n_rows, kDown ? 1 : 2 * a.top_k, warp);
  const auto begin_fetching = [&] {
    find_sources<kDown>(a, s, slice_at);
    __syncthreads();
    if (lane == 0)
      for (int i = 0; i < kSumsStages; ++i)
        fetch_tile<kDim>(fetched, s, ring + i * sums_unit_bytes(kDim), &s.full[warp][i]);
  };
  const int column =
      static_cast<int>(blockIdx.x) * sums_columns(kDim) + pair_column<kDim>(warp % 16, lane);
  float2 v = {0, 0};
  if constexpr (kDown) {
    begin_fetching();
    await_previous();
    let_next_begin();
    v = hidden_pair(a, s, column);
  } else {
    // x sets out ahead of the units: behind them it would wait for all of their bytes.
    await_previous();
    let_next_begin();
    if (warp < 16 && column < a.n_cols)
      v = *reinterpret_cast<const float2*>(a.x + static_cast<std::size_t>(blockIdx.z) * a.n_cols +
                                           column);
    begin_fetching();
  }
  const float undo = split_slice<kDim>(s.right, s.largest, v);
  make_table<kDim, 2>(table, s.right, word);
  __syncthreads();
  sum_rows_of_block<kDim, kDown>(a, table, s, ring, fetched, undo);
}

}  // namespace assay::kernels
