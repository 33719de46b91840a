// VQ matrices of a layer's routed experts as moe_sums.cuh reads them, where all codebooks have 256
// entries at most: in units of 8 rows by 128 codes, one piece of memory each, those of a slice of
// columns one after the other. A block has, of a slice, every codeword times x; a row is then a sum
// of table entries. Rows are padded to 8 and columns to whole slices: code 0, scale 0.
//
// A lane has codes 4 l … 4 l + 3 of each row, a word, and the words of its eight rows in two pieces
// of 16 bytes: word j is row j ^ sums_row(l), so that lanes that add up their rows pairwise (it has
// four rows left after one exchange, two after the next) send words of one place and keep those of
// another, whatever lane they are. Scales behind them are binary16, (dim, 8), of 128 columns each;
// where four lanes share one, its rows' are swapped likewise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/quantised.h"
#include "kernels/vq_units.h"

namespace assay::kernels {

constexpr int kSumsCodes = 128;                                   // of a slice's row
constexpr std::size_t kSumsSharedBytes = std::size_t{212} << 10;  // that a block needs
constexpr int kSumsCodeBytes = kVqUnitRows * kSumsCodes;

constexpr int sums_columns(int dim) { return kSumsCodes * dim; }  // of a slice
constexpr int sums_slices(int n_cols, int dim) {
  return (n_cols + sums_columns(dim) - 1) / sums_columns(dim);
}
constexpr int sums_unit_bytes(int dim) { return kSumsCodeBytes + 2 * kVqUnitRows * dim; }
constexpr std::int64_t sums_index(int row, int col, int n_rows, int dim) {
  return std::int64_t{col / sums_columns(dim)} * unit_tiles(n_rows) + row / kVqUnitRows;
}

// Of a tile's rows, the one that a lane begins with and ends with.
constexpr int sums_row(int lane) { return (lane & 1) << 2 | (lane & 2) | (lane >> 2 & 1); }
// Where a unit has code `code` of a row, and a column's scale, in bytes.
constexpr int sums_code_at(int row, int code) {
  const int lane = code / 4, word = row % kVqUnitRows ^ sums_row(lane);
  return word / 4 * 512 + lane * 16 + word % 4 * 4 + code % 4;
}
constexpr int sums_scale_at(int dim, int row, int col) {
  const int group = col % sums_columns(dim) / 128;
  return kSumsCodeBytes +
         2 * (group * kVqUnitRows + (row % kVqUnitRows ^ (dim == 8 ? group & 1 : 0)));
}

// Where every matrix has one codebook of at most 256 entries of 4 or 8 values, scales of a multiple
// of 128 columns (or of a row), gate and up one codebook, down one, and a block shared_bytes enough
// (sm_90 has). `experts` (n_experts, 3).
UnitPlan plan_sums(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes);
// Whether that is faster than units: where a table serves many rows, and columns fill their slices.
bool sums_pay(std::span<const VqMatrix> experts);

std::size_t sums_bytes(const VqMatrix& w);
std::vector<std::byte> pack_sums(const VqMatrix& w, ThreadPool& pool);

}  // namespace assay::kernels
