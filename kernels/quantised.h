// Quantised weight matrices as checkpoints store them, and their exact meaning. Nothing here is
// expanded: kernels read the codes. The formats are specified in docs/formats/vq.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace assay::kernels {

// Vector quantisation, y = W x with
//   W[r, c] = scale[r, c / group] * Σ_m codebook[m][index_m(r, c / dim)][c % dim].
// The release's format has one codebook (n_books 1), AQLM several.
struct VqMatrix {
  // (n_rows, row_words): 32-bit little-endian words, need not be aligned. The indices of one row
  // follow each other as a stream of index_bits each, least significant bit first, column by column
  // and book by book: sub-vector j of book m is number j * n_books + m. Padding bits are zero.
  const std::byte* codes = nullptr;
  // (n_rows, n_groups): binary16, need not be aligned.
  const std::byte* scales = nullptr;
  // (n_books, n_codes, dim): binary16 values widened to float; shared by many matrices.
  const float* codebook = nullptr;
  int n_rows = 0, n_cols = 0;
  int dim = 0;         // values of a codeword; divides n_cols and group
  int n_codes = 0;     // codewords of a book; 2 … 65536
  int index_bits = 0;  // of one index, 1 … 16; n_codes <= 2^index_bits
  int n_books = 1;
  int group = 0;  // columns that share a scale; the last group of a row may be shorter

  int n_subvectors() const { return n_cols / dim; }
  int n_groups() const { return (n_cols + group - 1) / group; }
  int row_words() const {
    const std::int64_t bits = std::int64_t{n_subvectors()} * n_books * index_bits;
    return static_cast<int>((bits + 31) / 32);
  }
};

// Integers, or 8-bit floats, with a scale for every block of them.
struct ScaledMatrix {
  enum class Kind {
    kGptq4,   // GPTQ v1: w = (q - (z + 1)) * s. values: qweight int32 (n_cols * 4 / 32, n_rows),
              // q of column c in bits 4 * (c % 8) of word (c / 8, r). zeros: qzeros int32
              // (n_groups, n_rows * 4 / 32), packed along rows. scales: binary16 (n_groups, n_rows)
    kGptq8,   // the same with 8 bits and 4 to a word
    kFp8E4m3  // values: bytes (n_rows, n_cols), OCP E4M3 (no infinity, 0x7F and 0xFF are NaN).
              // scales: float32 (ceil(n_rows / group), ceil(n_cols / group)): square blocks
  };
  Kind kind = Kind::kGptq8;
  const std::byte* values = nullptr;
  const std::byte* scales = nullptr;
  const std::byte* zeros = nullptr;  // GPTQ only
  int n_rows = 0, n_cols = 0;        // n_rows outputs, n_cols inputs
  int group = 0;                     // columns (and for kFp8E4m3 rows) that share a scale

  int n_groups() const { return (n_cols + group - 1) / group; }
};

int vq_index(const VqMatrix& w, int row, int subvector, int book = 0);
float vq_scale(const VqMatrix& w, int row, int group);
// One weight. With one book the product of two binary16 values is exact in float.
float weight_at(const VqMatrix& w, int row, int col);
float weight_at(const ScaledMatrix& w, int row, int col);

// What would be garbage, not an error, in a kernel: the first index that is no codeword of its
// book, as its position in the stream of `row`; -1 where all are in range.
std::int64_t first_bad_index(const VqMatrix& w, int row);

// y = W x in double precision: the definition of correct. x (n_tokens, x_stride >= n_cols),
// y (n_tokens, y_stride >= n_rows); accumulate adds to y.
void project_reference(const VqMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate);
void project_reference(const ScaledMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate);

}  // namespace assay::kernels
