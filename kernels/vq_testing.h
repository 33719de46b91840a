// Random vector-quantised matrices for tests.
#pragma once

#include <cstring>
#include <ostream>

#include "kernels/cpu_kernels_testing.h"
#include "kernels/quantised.h"

namespace assay::kernels {

struct VqShape {
  int n_rows, n_cols, dim, n_codes, index_bits, n_books, group;
};
inline std::ostream& operator<<(std::ostream& out, const VqShape& s) {
  return out << s.n_rows << "x" << s.n_cols << ", dim " << s.dim << ", " << s.n_codes << " codes, "
             << s.index_bits << " bits, " << s.n_books << " books, group " << s.group;
}

// Neither codes nor scales are aligned. Integers: codewords in -4 … 4 and scales ± 2^-2 … 2^2, so
// that sums with whole inputs are exact.
struct RandomVq {
  RandomVq(const VqShape& s, std::uint64_t seed, bool integers)
      : codebook(integers ? random_integers(book_values(s), seed)
                          : random_floats(book_values(s), seed)) {
    w.n_rows = s.n_rows, w.n_cols = s.n_cols, w.dim = s.dim, w.n_codes = s.n_codes;
    w.index_bits = s.index_bits, w.n_books = s.n_books, w.group = s.group;
    codes.resize(1 + std::size_t{4} * s.n_rows * w.row_words());
    scales.resize(1 + std::size_t{2} * s.n_rows * w.n_groups());
    std::uint64_t n_drawn = 0;
    const auto draw = [&](int n) { return static_cast<int>(uniform_at(seed, 1, n_drawn++) * n); };
    for (int r = 0; r < s.n_rows; ++r)
      for (int i = 0; i < w.n_subvectors() * s.n_books; ++i) put_index(r, i, draw(s.n_codes));
    for (std::size_t i = 1; i < scales.size(); i += 2) {
      const int mantissa = integers ? 0 : draw(1024);
      const int half = draw(2) << 15 | (13 + draw(5)) << 10 | mantissa;
      scales[i] = static_cast<std::byte>(half & 255);
      scales[i + 1] = static_cast<std::byte>(half >> 8);
    }
  }
  RandomVq(const RandomVq&) = delete;
  RandomVq& operator=(const RandomVq&) = delete;

  VqMatrix view(const float* shared_codebook = nullptr) const {
    VqMatrix v = w;
    v.codes = codes.data() + 1;
    v.scales = scales.data() + 1;
    v.codebook = shared_codebook != nullptr ? shared_codebook : codebook.data();
    return v;
  }

  VqMatrix w;
  std::vector<float> codebook;
  std::vector<std::byte> codes, scales;

 private:
  static std::size_t book_values(const VqShape& s) {
    return static_cast<std::size_t>(s.n_books) * s.n_codes * s.dim;
  }
  void put_index(int row, int position, int index) {
    const std::size_t first = 1 + std::size_t{4} * w.row_words() * row;
    for (int b = 0; b < w.index_bits; ++b) {
      const int bit = position * w.index_bits + b;
      codes[first + bit / 8] |= static_cast<std::byte>((index >> b & 1) << bit % 8);
    }
  }
};

// The matrix of n_tokens rows as pointers to them.
template <class T>
std::vector<T*> row_pointers(T* first, int n_tokens, int stride) {
  std::vector<T*> rows;
  for (int t = 0; t < n_tokens; ++t)
    rows.push_back(first + static_cast<std::ptrdiff_t>(t) * stride);
  return rows;
}

}  // namespace assay::kernels
