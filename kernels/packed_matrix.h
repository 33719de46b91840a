// A weight matrix laid out for SIMD lanes that are output rows.
#pragma once

#include <cstddef>

#include "kernels/aligned_array.h"
#include "kernels/dtype.h"

namespace assay::kernels {

// Blocks of 16 rows; within a block the columns ascend, so a kernel reads memory forwards and one
// load gives 16 rows. bfloat16: a 32-bit word holds columns (2j, 2j + 1) of one row, words are
// [block][j][16]. Anything else is kept as float32 (binary16 converts exactly),
// [block][column][16]. Rows and the column that pad are zero; kernels store no padding row and skip
// the padding column.
class PackedMatrix {
 public:
  static constexpr int kBlockRows = 16;

  PackedMatrix() = default;
  static PackedMatrix pack(const WeightMatrix& w);             // n_rows outputs, n_cols inputs
  static PackedMatrix pack_transposed(const WeightMatrix& w);  // n_cols outputs, n_rows inputs
  // Two matrices of one shape, block by block in turn: 16 rows of a, 16 of b, the next 16 of a, …;
  // each padded to whole blocks, so n_rows() is twice a's rounded up.
  static PackedMatrix pack_in_turn(const WeightMatrix& a, const WeightMatrix& b);

  int n_rows() const { return n_rows_; }
  int n_cols() const { return n_cols_; }
  int n_blocks() const { return (n_rows_ + kBlockRows - 1) / kBlockRows; }
  bool is_bf16() const { return is_bf16_; }
  bool empty() const { return n_rows_ == 0; }
  std::size_t bytes() const { return words_.bytes(); }

  // 32-bit words: two bfloat16, or one float32.
  const std::uint32_t* words() const { return words_.data(); }
  std::size_t block_words() const { return block_words_; }

 private:
  struct Source {
    const WeightMatrix* w;
    bool transposed;
    int first_block, block_step;  // where its blocks go
  };
  PackedMatrix(int n_rows, int n_cols, bool is_bf16);
  void fill(const Source& source);

  int n_rows_ = 0, n_cols_ = 0;
  bool is_bf16_ = false;
  std::size_t block_words_ = 0;
  AlignedArray<std::uint32_t> words_;
};

}  // namespace assay::kernels
