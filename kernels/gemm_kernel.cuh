// The kernel of gemm_cuda.cu: a block makes a tile of kTileM by 128 results, 64 columns of the
// operands at a time, in a ring of stages in shared memory. Rows of x come by asynchronous copies;
// so do bf16 weights, with few warps that multiply much each. Other weights are fetched as codes
// one stage ahead and decoded into the ring, by twice the warps.
#pragma once

#include "kernels/bf16_weights.cuh"
#include "kernels/gemm_cuda.h"
#include "kernels/mma_tile.cuh"
#include "kernels/row_dot.cuh"

namespace assay::kernels {

constexpr int kTileN = 128, kStages = 3;
constexpr int gemm_threads(bool copied) { return copied ? 128 : 256; }
constexpr int warps_along_m(int tile_m) { return tile_m == 32 ? 1 : 2; }
// Of one multiprocessor: as many as registers allow.
constexpr int gemm_blocks_at_once(int tile_m, bool copied) {
  return copied && tile_m < 128 ? 3 : 2;
}
constexpr int stage_bytes(int tile_m) { return (tile_m + kTileN) * kTileRowBytes; }

struct GemmArgs {
  // One matrix, or gate and up; of experts, which lie in device memory as (n_experts, 3), those
  // from `part` on.
  DeviceMatrix matrix[2];
  const DeviceMatrix* experts = nullptr;
  int part = 0;
  // x (n_rows, x_stride). With experts, result i is of row order[i] / slots_per_row, and of expert
  // e are those in [first[e], first[e + 1]).
  const Bf16* x = nullptr;
  int n_rows = 0, n_cols = 0, x_stride = 0;
  const int *order = nullptr, *first = nullptr;
  int n_experts = 0, slots_per_row = 1;
  bool x_by_slot = false, y_by_slot = false;  // else x's, y's rows are in the order of results
  // Of one matrix float, else bfloat16.
  void* y = nullptr;
  int y_stride = 0;
  bool accumulate = false, y_in_pairs = false;  // rows of y are 8-byte aligned
};

// The results of a tile: [begin, end), no more than kTileM of them count; and whose matrices.
struct TileRows {
  int expert, begin, end;
};

// Tiles of an expert follow each other, and those of the experts; a block past the last has none.
// Every warp finds the same.
template <int kTileM>
__device__ inline TileRows rows_of_tile(const GemmArgs& a, int tile) {
  if (a.first == nullptr) return {0, tile * kTileM, a.n_rows};
  constexpr unsigned kAll = 0xFFFFFFFFu;
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < a.n_experts; base += 32) {
    const int e = base + lane;
    const int begin = e < a.n_experts ? a.first[e] : 0, end = e < a.n_experts ? a.first[e + 1] : 0;
    const int n_tiles = (end - begin + kTileM - 1) / kTileM;
    int through = n_tiles;  // of the lanes up to this one
    for (int offset = 1; offset < 32; offset *= 2) {
      const int below = __shfl_up_sync(kAll, through, offset);
      if (lane >= offset) through += below;
    }
    const int mine = tile - (through - n_tiles);
    const unsigned found = __ballot_sync(kAll, mine >= 0 && mine < n_tiles);
    if (found != 0) {
      const int l = __ffs(static_cast<int>(found)) - 1;
      return {base + l, __shfl_sync(kAll, begin + mine * kTileM, l), __shfl_sync(kAll, end, l)};
    }
    tile -= __shfl_sync(kAll, through, 31);
  }
  return {0, 0, 0};
}

// A thread's pieces of the right operand: of one column of pieces and of rows kRowsAtOnce apart.
// Gate and up are interleaved by eight rows, so that a lane gets both of a result; those of a
// thread are all of one.
template <bool kPaired, bool kCopied>
class WeightTile {
 public:
  static constexpr int kRowsAtOnce = gemm_threads(kCopied) / kPieces;

  __device__ static int is_of_up() { return kPaired ? threadIdx.x / kPieces / 8 % 2 : 0; }

  __device__ WeightTile(const DeviceMatrix* m, int first_row)
      : m_(m), form_(form_of(*m)), n_rows_(m->n_rows), n_cols_(m->n_cols), first_row_(first_row) {
    if constexpr (!kCopied) fetch(0);
  }

  // Stage k into the ring; decoded ones in turn.
  __device__ void load(unsigned to, int k) {
    const int col = k * kTileK + piece() * kPieceValues;
    if constexpr (kCopied) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const bool inside = col < n_cols_;
        copy_piece(address(to, u),
                   static_cast<const Bf16*>(m_->values) + static_cast<size_t>(row(u)) * n_cols_ +
                       (inside ? col : 0),
                   inside ? 16 : 0);
      }
    } else {
      with_form(form_, [&](auto form) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u)
          store_piece(address(to, u), col < n_cols_
                                          ? decode_codes<form.value>(*m_, row(u), col, codes_[u])
                                          : uint4{0, 0, 0, 0});
      });
      fetch(k + 1);
    }
  }

 private:
  static constexpr int kUnits = kTileN / kRowsAtOnce;

  __device__ static int piece() { return threadIdx.x % kPieces; }
  __device__ static int row_at_once() { return threadIdx.x / kPieces; }
  __device__ static unsigned address(unsigned to, int u) {
    return to + piece_offset(u * kRowsAtOnce + row_at_once(), piece());
  }
  // Rows past the matrix repeat its last; what becomes of them is not stored.
  __device__ int row(int u) const {
    const int r = u * kRowsAtOnce + row_at_once();
    return min(first_row_ + (kPaired ? r / 16 * 8 + r % 8 : r), n_rows_ - 1);
  }
  __device__ void fetch(int k) {
    const int col = k * kTileK + piece() * kPieceValues;
    if (col >= n_cols_) return;
    with_form(form_, [&](auto form) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) codes_[u] = fetch_codes<form.value>(*m_, row(u), col);
    });
  }

  // Read again where it is used: registers are short.
  const DeviceMatrix* const m_;
  const WeightForm form_;
  const int n_rows_, n_cols_, first_row_;
  uint2 codes_[kCopied ? 1 : kUnits];
};

// Grid: tiles of rows, tiles of columns (of 128 results, or 64 of gate and up).
template <int kTileM, bool kPaired, bool kCopied>
__global__ void __launch_bounds__(gemm_threads(kCopied), gemm_blocks_at_once(kTileM, kCopied))
    gemm(const __grid_constant__ GemmArgs a) {
  extern __shared__ __align__(128) unsigned char ring[];
  constexpr int kWarpsM = warps_along_m(kTileM), kWarpsN = gemm_threads(kCopied) / 32 / kWarpsM;
  constexpr int kBlocksM = kTileM / kWarpsM / 16, kBlocksN = kTileN / kWarpsN / 8;
  constexpr int kResultColumns = kPaired ? kTileN / 2 : kTileN;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp % kWarpsM * kBlocksM * 16, warp_n = warp / kWarpsM * kBlocksN * 8;

  const TileRows rows = rows_of_tile<kTileM>(a, blockIdx.x);
  if (rows.begin >= rows.end) return;
  const int first_column = blockIdx.y * kResultColumns;
  using Weights = WeightTile<kPaired, kCopied>;
  const DeviceMatrix* m = (a.experts != nullptr ? a.experts + 3 * rows.expert + a.part : a.matrix) +
                          Weights::is_of_up();
  Weights weights(m, first_column);

  const int piece = threadIdx.x % kPieces, row_at_once = threadIdx.x / kPieces;
  constexpr int kRowsAtOnce = Weights::kRowsAtOnce, kUnits = kTileM / kRowsAtOnce;
  int x_row[kUnits];  // rows past the last repeat it
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int i = min(rows.begin + u * kRowsAtOnce + row_at_once, rows.end - 1);
    x_row[u] = a.x_by_slot ? a.order[i] / a.slots_per_row : i;
  }
  const unsigned base = shared_address(ring);
  const auto load = [&](int k) {
    const unsigned to = base + k % kStages * stage_bytes(kTileM);
    const int col = k * kTileK + piece * kPieceValues;
    const int n_bytes = min(max(a.n_cols - col, 0), kPieceValues) * 2;
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      copy_piece(to + piece_offset(u * kRowsAtOnce + row_at_once, piece),
                 a.x + static_cast<size_t>(x_row[u]) * a.x_stride + (n_bytes > 0 ? col : 0),
                 n_bytes);
    weights.load(to + kTileM * kTileRowBytes, k);
  };

  const int n_steps = (a.n_cols + kTileK - 1) / kTileK;
#pragma unroll
  for (int k = 0; k < kStages - 1; ++k) {
    if (k < n_steps) load(k);
    close_copies();
  }
  float sum[kBlocksM][kBlocksN][4] = {};
  for (int k = 0; k < n_steps; ++k) {
    await_copies<kStages - 2>();
    __syncthreads();  // stage k is whole, and no warp reads the one before it any more
    if (k + kStages - 1 < n_steps) load(k + kStages - 1);
    close_copies();
    const unsigned left_tile = base + k % kStages * stage_bytes(kTileM),
                   right_tile = left_tile + kTileM * kTileRowBytes;
#pragma unroll
    for (int step = 0; step < kTileK / 16; ++step) {
      unsigned left[kBlocksM][4], right[kBlocksN / 2][4];
#pragma unroll
      for (int i = 0; i < kBlocksM; ++i)
        load_matrices(left[i], left_tile + piece_offset(warp_m + i * 16 + left_row(lane),
                                                        step * 2 + left_piece(lane)));
#pragma unroll
      for (int j = 0; j < kBlocksN / 2; ++j)
        load_matrices(right[j], right_tile + piece_offset(warp_n + j * 16 + right_row(lane),
                                                          step * 2 + right_piece(lane)));
#pragma unroll
      for (int i = 0; i < kBlocksM; ++i)
#pragma unroll
        for (int j = 0; j < kBlocksN; ++j)
          multiply_add(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
    }
  }

#pragma unroll
  for (int i = 0; i < kBlocksM; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int result = rows.begin + warp_m + i * 16 + half * 8 + result_row(lane);
      if (result >= rows.end) continue;
      const size_t to = static_cast<size_t>(a.y_by_slot ? a.order[result] : result) * a.y_stride;
      const int column = first_column + result_column(lane);
      if constexpr (kPaired) {
        Bf16* y = static_cast<Bf16*>(a.y) + to;
#pragma unroll
        for (int j = 0; j < kBlocksN; j += 2) {
          const int col = column + warp_n / 2 + j * 4;
          const float* gate = sum[i][j] + half * 2;
          const float* up = sum[i][j + 1] + half * 2;
          if (col < m->n_rows)  // a row's length is even, that of its stride
            *reinterpret_cast<unsigned*>(y + col) =
                bf16_pair(silu(gate[0]) * up[0], silu(gate[1]) * up[1]);
        }
      } else {
        float* y = static_cast<float*>(a.y) + to;
#pragma unroll
        for (int j = 0; j < kBlocksN; ++j) {
          const int col = column + warp_n + j * 8;
          float2 value = {sum[i][j][half * 2], sum[i][j][half * 2 + 1]};
          if (a.y_in_pairs && col + 1 < m->n_rows) {
            float2* pair = reinterpret_cast<float2*>(y + col);
            if (a.accumulate) value = {pair->x + value.x, pair->y + value.y};
            *pair = value;
          } else {
            if (col < m->n_rows) y[col] = a.accumulate ? y[col] + value.x : value.x;
            if (col + 1 < m->n_rows) y[col + 1] = a.accumulate ? y[col + 1] + value.y : value.y;
          }
        }
      }
    }
}

}  // namespace assay::kernels
