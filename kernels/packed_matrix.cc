#include "kernels/packed_matrix.h"

#include <bit>

#include "base/check.h"

namespace assay::kernels {
namespace {

std::uint16_t raw_bf16(const WeightMatrix& w, std::int64_t index) {
  std::uint16_t bits;
  std::memcpy(&bits, static_cast<const unsigned char*>(w.data) + 2 * index, 2);
  return bits;
}

int n_blocks_of(int n_rows) {
  return (n_rows + PackedMatrix::kBlockRows - 1) / PackedMatrix::kBlockRows;
}

}  // namespace

PackedMatrix PackedMatrix::pack(WeightArena& arena, const WeightMatrix& w) {
  PackedMatrix m(arena, w.n_rows, w.n_cols, w.type == WeightType::kBf16);
  m.fill({&w, false, 0, 1});
  return m;
}

PackedMatrix PackedMatrix::pack_transposed(WeightArena& arena, const WeightMatrix& w) {
  PackedMatrix m(arena, w.n_cols, w.n_rows, w.type == WeightType::kBf16);
  m.fill({&w, true, 0, 1});
  return m;
}

PackedMatrix PackedMatrix::pack_in_turn(WeightArena& arena, const WeightMatrix& a,
                                        const WeightMatrix& b) {
  CHECK(a.n_rows == b.n_rows && a.n_cols == b.n_cols)
      << a.n_rows << "x" << a.n_cols << " and " << b.n_rows << "x" << b.n_cols;
  const bool both_bf16 = a.type == WeightType::kBf16 && b.type == WeightType::kBf16;
  PackedMatrix m(arena, 2 * kBlockRows * n_blocks_of(a.n_rows), a.n_cols, both_bf16);
  m.fill({&a, false, 0, 2});
  m.fill({&b, false, 1, 2});
  return m;
}

PackedMatrix::PackedMatrix(WeightArena& arena, int n_rows, int n_cols, bool is_bf16)
    : n_rows_(n_rows), n_cols_(n_cols), is_bf16_(is_bf16) {
  row_words_ = static_cast<std::size_t>(is_bf16 ? (n_cols + 1) / 2 : n_cols);
  words_ = static_cast<std::uint32_t*>(arena.allocate(bytes()));
}

void PackedMatrix::fill(const Source& source) {
  const WeightMatrix& w = *source.w;
  const int n_rows = source.transposed ? w.n_cols : w.n_rows;
  for (int r = 0; r < n_rows; ++r) {
    const int block = source.first_block + r / kBlockRows * source.block_step;
    std::uint32_t* out = words_ + offset(block) + r % kBlockRows;
    const std::size_t step = step_words(block);
    for (int k = 0; k < n_cols_; ++k) {
      const std::int64_t index = source.transposed ? static_cast<std::int64_t>(k) * w.n_cols + r
                                                   : static_cast<std::int64_t>(r) * w.n_cols + k;
      if (is_bf16_)
        out[static_cast<std::size_t>(k / 2) * step] |=
            static_cast<std::uint32_t>(raw_bf16(w, index)) << (16 * (k % 2));
      else
        out[static_cast<std::size_t>(k) * step] = std::bit_cast<std::uint32_t>(weight_at(w, index));
    }
  }
}

}  // namespace assay::kernels
