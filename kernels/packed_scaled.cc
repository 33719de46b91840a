#include "kernels/packed_scaled.h"

#include <cstring>

#include "base/check.h"

namespace assay::kernels {
namespace {

std::uint32_t field(const std::byte* words, std::int64_t word, int bits, int i) {
  std::uint32_t value;
  std::memcpy(&value, words + 4 * word, 4);
  return value >> (bits * (i % (32 / bits))) & ((1u << bits) - 1);
}

}  // namespace

void PackedScaled::fill_gptq(const ScaledMatrix& w, int row) {
  const int bits = kind() == Kind::kGptq4 ? 4 : 8, per_word = 32 / bits, lane = row % kBlockRows;
  const std::int64_t zero_words = (w.n_rows + per_word - 1) / per_word;
  for (int g = 0; g < n_groups(); ++g) {
    std::byte* out = data_ + (tile(g, row / kBlockRows) - data_);
    std::memcpy(out + scales_offset(g) + 2 * lane,
                w.scales + 2 * (static_cast<std::int64_t>(g) * w.n_rows + row), 2);
    out[zeros_offset(g) + lane] =
        static_cast<std::byte>(field(w.zeros, g * zero_words + row / per_word, bits, row));
    for (int i = 0; i < n_cols(g); ++i, out += column_bytes()) {
      const int c = first_col(g) + i;
      const auto q = field(w.values, std::int64_t{c / per_word} * w.n_rows + row, bits, c);
      out[lane % static_cast<int>(column_bytes())] |=
          static_cast<std::byte>(q << (lane < static_cast<int>(column_bytes()) ? 0 : 4));
    }
  }
}

void PackedScaled::fill_fp8(const ScaledMatrix& w, int row) {
  const int lane = row % kBlockRows;
  for (int g = 0; g < n_groups(); ++g) {
    std::byte* out = data_ + (tile(g, row / kBlockRows) - data_);
    std::memcpy(out + scales_offset(g) + 4 * lane,
                w.scales + 4 * (std::int64_t{row / w.group} * n_groups() + g), 4);
    for (int i = 0; i < n_cols(g); ++i, out += column_bytes())
      out[lane] = w.values[static_cast<std::int64_t>(row) * w.n_cols + first_col(g) + i];
  }
}

PackedScaled PackedScaled::pack(WeightArena& arena, const ScaledMatrix& w) {
  CHECK(w.n_rows > 0 && w.n_cols > 0 && w.group > 0)
      << w.n_rows << "x" << w.n_cols << ", group " << w.group;
  PackedScaled m;
  m.shape_ = w;
  m.shape_.values = m.shape_.scales = m.shape_.zeros = nullptr;
  m.data_ = static_cast<std::byte*>(arena.allocate(m.bytes()));
  for (int r = 0; r < w.n_rows; ++r)
    w.kind == Kind::kFp8E4m3 ? m.fill_fp8(w, r) : m.fill_gptq(w, r);
  return m;
}

}  // namespace assay::kernels
