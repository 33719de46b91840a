// A weight matrix laid out for SIMD lanes that are output rows. Its memory is the arena's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/weight_arena.h"

namespace assay::kernels {

// Blocks of 16 rows, in groups of four blocks (the last group: what is left). bfloat16: a 32-bit
// word holds columns (2j, 2j + 1) of one row, and words are [group][j][block of the group][16].
// Anything else is kept as float32 (binary16 converts exactly), [group][column][block][16]. So a
// load gives 16 rows, and a kernel that takes a group at a time reads memory strictly forwards: the
// processor's prefetchers follow one stream, where one stream per block would be too short for
// them. Rows and the column that pad are zero; kernels store no padding row and skip the padding
// column.
class PackedMatrix {
 public:
  static constexpr int kBlockRows = 16, kGroupBlocks = 4;

  PackedMatrix() = default;
  static PackedMatrix pack(WeightArena& arena,
                           const WeightMatrix& w);  // n_rows outputs, n_cols inputs
  // n_cols outputs, n_rows inputs
  static PackedMatrix pack_transposed(WeightArena& arena, const WeightMatrix& w);
  // Two matrices of one shape, block by block in turn: 16 rows of a, 16 of b, the next 16 of a, …;
  // each padded to whole blocks, so n_rows() is twice a's rounded up.
  static PackedMatrix pack_in_turn(WeightArena& arena, const WeightMatrix& a,
                                   const WeightMatrix& b);

  int n_rows() const { return n_rows_; }
  int n_cols() const { return n_cols_; }
  int n_blocks() const { return (n_rows_ + kBlockRows - 1) / kBlockRows; }
  bool is_bf16() const { return is_bf16_; }
  bool empty() const { return n_rows_ == 0; }
  std::size_t bytes() const {
    return sizeof(std::uint32_t) * row_words_ * kBlockRows * static_cast<std::size_t>(n_blocks());
  }

  // 32-bit words: two bfloat16, or one float32.
  const std::uint32_t* block(int b) const { return words_ + offset(b); }
  // From one step of a block's columns to the next; and from a group to the next full one.
  std::size_t step_words(int b) const {
    return static_cast<std::size_t>(kBlockRows) *
           static_cast<std::size_t>(
               std::min(kGroupBlocks, n_blocks() - b / kGroupBlocks * kGroupBlocks));
  }
  std::size_t group_words() const { return row_words_ * kBlockRows * kGroupBlocks; }

 private:
  struct Source {
    const WeightMatrix* w;
    bool transposed;
    int first_block, block_step;  // where its blocks go
  };
  PackedMatrix(WeightArena& arena, int n_rows, int n_cols, bool is_bf16);
  void fill(const Source& source);
  std::size_t offset(int b) const {
    return static_cast<std::size_t>(b / kGroupBlocks) * group_words() +
           static_cast<std::size_t>(b % kGroupBlocks) * kBlockRows;
  }

  int n_rows_ = 0, n_cols_ = 0;
  bool is_bf16_ = false;
  std::size_t row_words_ = 0;
  std::uint32_t* words_ = nullptr;
};

// Asks for the first 4 KiB from block b on, ahead of a product that begins there: the processor's
// own prefetchers need a few misses to find a new stream.
inline void prefetch_block(const PackedMatrix& m, int b) {
  const char* p = reinterpret_cast<const char*>(m.block(b));
  for (int line = 0; line < 64; ++line) __builtin_prefetch(p + 64 * line);
}

}  // namespace assay::kernels
