#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/dtype.h"
#include "kernels/quantised.h"

namespace assay::kernels {
namespace {

std::uint32_t word_at(const std::byte* data, std::int64_t i) {
  std::uint32_t word;
  std::memcpy(&word, data + 4 * i, 4);
  return word;
}

float half_at(const std::byte* data, std::int64_t i) {
  std::uint16_t half;
  std::memcpy(&half, data + 2 * i, 2);
  return f16_to_f32(half);
}

int index_at(const VqMatrix& w, int row, std::int64_t position) {
  const std::int64_t bit = position * w.index_bits, word = bit / 32;
  const std::byte* stream = w.codes + 4 * static_cast<std::int64_t>(w.row_words()) * row;
  std::uint64_t bits = word_at(stream, word);
  if (bit % 32 + w.index_bits > 32) bits |= std::uint64_t{word_at(stream, word + 1)} << 32;
  return static_cast<int>(bits >> (bit % 32) & ((1u << w.index_bits) - 1));
}

// Value and scale apart: their product is a weight, which float holds exactly for GPTQ only.
struct Scaled {
  float value, scale;
};

Scaled gptq_at(const ScaledMatrix& w, int row, int col, int bits) {
  const int per_word = 32 / bits, group = col / w.group;
  const std::uint32_t mask = (1u << bits) - 1;
  const std::int64_t zero_words = (w.n_rows + per_word - 1) / per_word;
  const auto field = [&](std::uint32_t word, int i) {
    return static_cast<int>(word >> (bits * (i % per_word)) & mask);
  };
  const int q = field(word_at(w.values, std::int64_t{col / per_word} * w.n_rows + row), col);
  const int z = field(word_at(w.zeros, group * zero_words + row / per_word), row);
  return {static_cast<float>(q - (z + 1)),
          half_at(w.scales, static_cast<std::int64_t>(group) * w.n_rows + row)};
}

Scaled scaled_at(const ScaledMatrix& w, int row, int col) {
  switch (w.kind) {
    case ScaledMatrix::Kind::kGptq4:
      return gptq_at(w, row, col, 4);
    case ScaledMatrix::Kind::kGptq8:
      return gptq_at(w, row, col, 8);
    case ScaledMatrix::Kind::kFp8E4m3: {
      const auto code =
          std::to_integer<std::uint8_t>(w.values[static_cast<std::int64_t>(row) * w.n_cols + col]);
      const std::int64_t block =
          std::int64_t{row / w.group} * w.n_groups() + static_cast<std::int64_t>(col / w.group);
      return {e4m3_to_f32(code), std::bit_cast<float>(word_at(w.scales, block))};
    }
  }
  CHECK(false) << static_cast<int>(w.kind);
  return {};
}

// Σ of `row` · x for each token, then the one rounding to float.
void store_products(const std::vector<double>& row, int r, const float* x, int n_tokens,
                    int x_stride, float* y, int y_stride, bool accumulate) {
  for (int t = 0; t < n_tokens; ++t) {
    const float* token = x + static_cast<std::int64_t>(t) * x_stride;
    double sum = 0;
    for (std::size_t c = 0; c < row.size(); ++c) sum += row[c] * static_cast<double>(token[c]);
    float& out = y[static_cast<std::int64_t>(t) * y_stride + r];
    out = static_cast<float>(accumulate ? static_cast<double>(out) + sum : sum);
  }
}

}  // namespace

int vq_index(const VqMatrix& w, int row, int subvector, int book) {
  return index_at(w, row, static_cast<std::int64_t>(subvector) * w.n_books + book);
}

float vq_scale(const VqMatrix& w, int row, int group) {
  return half_at(w.scales, static_cast<std::int64_t>(row) * w.n_groups() + group);
}

float weight_at(const VqMatrix& w, int row, int col) {
  float sum = 0;
  for (int m = 0; m < w.n_books; ++m) {
    const std::int64_t codeword =
        static_cast<std::int64_t>(m) * w.n_codes + vq_index(w, row, col / w.dim, m);
    sum += w.codebook[codeword * w.dim + col % w.dim];
  }
  return vq_scale(w, row, col / w.group) * sum;
}

float weight_at(const ScaledMatrix& w, int row, int col) {
  const Scaled s = scaled_at(w, row, col);
  return s.scale * s.value;
}

std::int64_t first_bad_index(const VqMatrix& w, int row) {
  const std::int64_t n = static_cast<std::int64_t>(w.n_subvectors()) * w.n_books;
  for (std::int64_t position = 0; position < n; ++position)
    if (index_at(w, row, position) >= w.n_codes) return position;
  return -1;
}

void project_reference(const VqMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate) {
  std::vector<double> row(static_cast<std::size_t>(w.n_cols));
  for (int r = 0; r < w.n_rows; ++r) {
    for (int j = 0; j < w.n_subvectors(); ++j)
      for (int i = 0; i < w.dim; ++i) {
        double sum = 0;
        for (int m = 0; m < w.n_books; ++m)
          sum +=
              w.codebook[(static_cast<std::int64_t>(m) * w.n_codes + vq_index(w, r, j, m)) * w.dim +
                         i];
        const int c = j * w.dim + i;
        row[c] = static_cast<double>(vq_scale(w, r, c / w.group)) * sum;
      }
    store_products(row, r, x, n_tokens, x_stride, y, y_stride, accumulate);
  }
}

void project_reference(const ScaledMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate) {
  std::vector<double> row(static_cast<std::size_t>(w.n_cols));
  for (int r = 0; r < w.n_rows; ++r) {
    for (int c = 0; c < w.n_cols; ++c) {
      const Scaled s = scaled_at(w, r, c);
      row[c] = static_cast<double>(s.scale) * static_cast<double>(s.value);
    }
    store_products(row, r, x, n_tokens, x_stride, y, y_stride, accumulate);
  }
}

}  // namespace assay::kernels
