// Products with integer (GPTQ) and 8-bit float matrices on the CPU, straight from their codes:
//   y_r = Σ_g scale_rg (Σ_{c in g} value_rc x_c), value the integer less its zero point or the
// 8-bit float, both sums one chain in ascending order. The bits of a result do not depend on the
// target, the number of tokens, or how work is shared out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/cpu_target.h"
#include "kernels/quantised.h"
#include "kernels/weight_arena.h"

namespace assay::kernels {

// Rows come in blocks of 64, columns in scale groups; a tile is one block in one group, and tiles
// lie [block][group]. A tile holds [column][64 values], then 64 scales (binary16, for 8-bit floats
// float32), then for GPTQ 64 zero points in bytes. Of 4-bit values a byte i holds row i in its low
// half and row i + 32 in its high half. Rows that pad are zero.
class PackedScaled {
 public:
  using Kind = ScaledMatrix::Kind;
  PackedScaled() = default;
  static PackedScaled pack(WeightArena& arena, const ScaledMatrix& w);

  static constexpr int kBlockRows = 64;  // work is shared out by whole blocks
  Kind kind() const { return shape_.kind; }
  int n_rows() const { return shape_.n_rows; }
  int n_cols() const { return shape_.n_cols; }
  int n_groups() const { return shape_.n_groups(); }
  int n_blocks() const { return (n_rows() + kBlockRows - 1) / kBlockRows; }
  bool empty() const { return n_rows() == 0; }
  std::size_t bytes() const { return block_bytes() * n_blocks(); }

  int first_col(int group) const { return group * shape_.group; }
  int n_cols(int group) const { return std::min(shape_.group, n_cols() - first_col(group)); }
  std::size_t column_bytes() const { return kind() == Kind::kGptq4 ? 32 : 64; }
  std::size_t scales_offset(int group) const { return column_bytes() * n_cols(group); }
  std::size_t zeros_offset(int group) const { return scales_offset(group) + 2 * kBlockRows; }
  const std::byte* tile(int group, int block) const {
    return data_ + block_bytes() * block + column_bytes() * first_col(group) +
           std::size_t{scale_bytes(kind())} * kBlockRows * group;
  }

 private:
  static constexpr unsigned scale_bytes(Kind kind) { return kind == Kind::kFp8E4m3 ? 4 : 3; }
  std::size_t block_bytes() const {
    return column_bytes() * n_cols() + std::size_t{scale_bytes(kind())} * kBlockRows * n_groups();
  }
  void fill_gptq(const ScaledMatrix& w, int row);
  void fill_fp8(const ScaledMatrix& w, int row);

  ScaledMatrix shape_;  // without its arrays
  std::byte* data_ = nullptr;
};

struct ScaledProduct {
  const PackedScaled* w;
  float* const* y;  // (n_tokens) pointers to n_rows values; must not overlap x
  int first_block, last_block;
};
struct ScaledProjectArgs {
  std::span<const ScaledProduct> products;
  const float* const* x;  // (n_tokens) pointers to n_cols values, the same for all products
  int n_tokens;
  bool accumulate;
};
void scaled_project_cpu(CpuTarget target, const ScaledProjectArgs& args);

}  // namespace assay::kernels
