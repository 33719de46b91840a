#include "engine/backend/matrix_slice.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "engine/backend/matrix_view.h"

namespace assay::engine {
namespace {

using kernels::ScaledMatrix;
using kernels::VqMatrix;

std::byte* new_bytes(std::size_t n, Owned& owned) {
  auto bytes = std::make_shared<std::vector<std::byte>>(n);
  std::byte* data = bytes->data();
  owned.push_back(std::move(bytes));
  return data;
}

// The columns that share a scale in the part [first, first + n).
int group_of_part(int group, int first, int n) {
  return first / group == (first + n - 1) / group ? group : std::gcd(group, first);
}

// Bits [first, first + n) of a stream of 32-bit words, as words whose padding bits are zero. `word`
// reads one of them and `put` writes one.
template <class Word, class Put>
void copy_bits(const Word& word, std::int64_t first, std::int64_t n, const Put& put) {
  const std::int64_t end = (first + n + 31) / 32;  // words that are read
  for (std::int64_t i = 0; i * 32 < n; ++i) {
    const std::int64_t bit = first + i * 32, w = bit / 32, left = n - i * 32;
    std::uint64_t both = word(w);
    if (w + 1 < end) both |= std::uint64_t{word(w + 1)} << 32;
    const auto bits = static_cast<std::uint32_t>(both >> (bit % 32));
    put(i, left < 32 ? bits & ((1u << left) - 1) : bits);
  }
}

std::uint32_t load_word(const std::byte* words, std::int64_t i) {
  std::uint32_t word;
  std::memcpy(&word, words + 4 * i, 4);
  return word;
}
void store_word(std::byte* words, std::int64_t i, std::uint32_t word) {
  std::memcpy(words + 4 * i, &word, 4);
}

VqMatrix columns_of(const VqMatrix& w, int first, int n, Owned& owned) {
  CHECK(first % w.dim == 0 && n % w.dim == 0) << first << " + " << n << ", codewords of " << w.dim;
  VqMatrix part = w;
  part.n_cols = n;
  part.group = group_of_part(w.group, first, n);
  const std::int64_t index_bits = std::int64_t{w.n_books} * w.index_bits, row_words = w.row_words(),
                     part_words = part.row_words(), n_groups = part.n_groups();
  std::byte* codes = new_bytes(static_cast<std::size_t>(w.n_rows * part_words * 4), owned);
  std::byte* scales = new_bytes(static_cast<std::size_t>(w.n_rows * n_groups * 2), owned);
  for (std::int64_t r = 0; r < w.n_rows; ++r) {
    const std::byte* from = w.codes + r * row_words * 4;
    copy_bits(
        [&](std::int64_t i) { return load_word(from, i); }, first / w.dim * index_bits,
        n / w.dim * index_bits,
        [&](std::int64_t i, std::uint32_t word) { store_word(codes, r * part_words + i, word); });
    for (std::int64_t g = 0; g < n_groups; ++g)
      std::memcpy(scales + (r * n_groups + g) * 2,
                  w.scales + (r * w.n_groups() + (first + g * part.group) / w.group) * 2, 2);
  }
  part.codes = codes;
  part.scales = scales;
  return part;
}

struct Block {
  int first_row, n_rows, first_col, n_cols;
};

ScaledMatrix block_of_fp8(const ScaledMatrix& w, const Block& b, Owned& owned) {
  ScaledMatrix part = w;
  part.n_rows = b.n_rows;
  part.n_cols = b.n_cols;
  part.group = std::gcd(w.group, std::gcd(b.first_row, b.first_col));
  const std::int64_t n_row_groups = (b.n_rows + part.group - 1) / part.group,
                     n_groups = part.n_groups();
  if (b.n_cols == w.n_cols) {
    part.values = w.values + std::int64_t{b.first_row} * w.n_cols;
  } else {
    std::byte* values =
        new_bytes(static_cast<std::size_t>(std::int64_t{b.n_rows} * b.n_cols), owned);
    for (std::int64_t r = 0; r < b.n_rows; ++r)
      std::memcpy(values + r * b.n_cols, w.values + (b.first_row + r) * w.n_cols + b.first_col,
                  static_cast<std::size_t>(b.n_cols));
    part.values = values;
  }
  std::byte* scales = new_bytes(static_cast<std::size_t>(n_row_groups * n_groups * 4), owned);
  for (std::int64_t i = 0; i < n_row_groups; ++i)
    for (std::int64_t g = 0; g < n_groups; ++g) {
      const std::int64_t from = (b.first_row + i * part.group) / w.group * w.n_groups() +
                                (b.first_col + g * part.group) / w.group;
      store_word(scales, i * n_groups + g, load_word(w.scales, from));
    }
  part.scales = scales;
  return part;
}

// qweight's words hold columns and lie (word, row); qzeros' hold rows and lie (group, word).
ScaledMatrix block_of_gptq(const ScaledMatrix& w, const Block& b, Owned& owned) {
  ScaledMatrix part = w;
  part.n_rows = b.n_rows;
  part.n_cols = b.n_cols;
  part.group = group_of_part(w.group, b.first_col, b.n_cols);
  const std::int64_t bits = w.kind == ScaledMatrix::Kind::kGptq4 ? 4 : 8, per_word = 32 / bits;
  const auto words = [&](std::int64_t n) { return (n + per_word - 1) / per_word; };
  const std::int64_t n_rows = b.n_rows, n_groups = part.n_groups();
  std::byte* values = new_bytes(static_cast<std::size_t>(words(b.n_cols) * n_rows * 4), owned);
  for (std::int64_t r = 0; r < n_rows; ++r)
    copy_bits(
        [&](std::int64_t i) { return load_word(w.values, i * w.n_rows + b.first_row + r); },
        b.first_col * bits, b.n_cols * bits,
        [&](std::int64_t i, std::uint32_t word) { store_word(values, i * n_rows + r, word); });
  std::byte* scales = new_bytes(static_cast<std::size_t>(n_groups * n_rows * 2), owned);
  std::byte* zeros = new_bytes(static_cast<std::size_t>(n_groups * words(n_rows) * 4), owned);
  for (std::int64_t g = 0; g < n_groups; ++g) {
    const std::int64_t from = (b.first_col + g * part.group) / w.group;
    std::memcpy(scales + g * n_rows * 2, w.scales + (from * w.n_rows + b.first_row) * 2,
                static_cast<std::size_t>(n_rows * 2));
    copy_bits([&](std::int64_t i) { return load_word(w.zeros, from * words(w.n_rows) + i); },
              b.first_row * bits, n_rows * bits,
              [&](std::int64_t i, std::uint32_t word) {
                store_word(zeros, g * words(n_rows) + i, word);
              });
  }
  part.values = values;
  part.scales = scales;
  part.zeros = zeros;
  return part;
}

ScaledMatrix block_of(const ScaledMatrix& w, const Block& b, Owned& owned) {
  return w.kind == ScaledMatrix::Kind::kFp8E4m3 ? block_of_fp8(w, b, owned)
                                                : block_of_gptq(w, b, owned);
}

Matrix part_of(const Matrix& m, const char* what, int first, int n) {
  Matrix part = m;
  part.name = fmt::format("{} {} {} to {}", m.name, what, first, first + n - 1);
  return part;
}

}  // namespace

Matrix rows_of(const Matrix& m, int first, int n, Owned& owned) {
  if (m.empty()) return m;
  CHECK(first >= 0 && n > 0 && first + n <= m.n_rows) << first << " + " << n << " of " << m.n_rows;
  Matrix part = part_of(m, "rows", first, n);
  part.n_rows = n;
  if (const auto* vq = std::get_if<VqMatrix>(&m.codes))
    part.codes = rows_of(*vq, first, n);
  else if (const auto* scaled = std::get_if<ScaledMatrix>(&m.codes))
    part.codes = block_of(*scaled, {first, n, 0, m.n_cols}, owned);
  else
    part.data = static_cast<const std::byte*>(rows_of(view(m), first, n).data);
  return part;
}

Matrix columns_of(const Matrix& m, int first, int n, Owned& owned) {
  if (m.empty()) return m;
  CHECK(first >= 0 && n > 0 && first + n <= m.n_cols) << first << " + " << n << " of " << m.n_cols;
  Matrix part = part_of(m, "columns", first, n);
  part.n_cols = n;
  if (const auto* vq = std::get_if<VqMatrix>(&m.codes)) {
    part.codes = columns_of(*vq, first, n, owned);
  } else if (const auto* scaled = std::get_if<ScaledMatrix>(&m.codes)) {
    part.codes = block_of(*scaled, {0, m.n_rows, first, n}, owned);
  } else {
    const std::size_t size = bytes_of(m.dtype), row = size * static_cast<std::size_t>(n),
                      whole_row = size * static_cast<std::size_t>(m.n_cols);
    std::byte* data = new_bytes(row * static_cast<std::size_t>(m.n_rows), owned);
    for (std::size_t r = 0; r < static_cast<std::size_t>(m.n_rows); ++r)
      std::memcpy(data + r * row, m.data + r * whole_row + size * static_cast<std::size_t>(first),
                  row);
    part.data = data;
  }
  return part;
}

int column_unit(const Matrix& m) {
  const auto* vq = std::get_if<VqMatrix>(&m.codes);
  return vq == nullptr ? 1 : vq->dim;
}

int column_group(const Matrix& m) {
  if (const auto* vq = std::get_if<VqMatrix>(&m.codes)) return vq->group;
  if (const auto* scaled = std::get_if<ScaledMatrix>(&m.codes)) return scaled->group;
  return 1;
}

}  // namespace assay::engine
