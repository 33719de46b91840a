// Matrices to encode with Hessians of inputs that correlate, and what became of them.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/quantize/binary16.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/gptq_vq.h"
#include "engine/quantize/hessian.h"
#include "engine/quantize/pack.h"
#include "engine/quantize/quantize_testing.h"
#include "kernels/quantised.h"
#include "kernels/row_major.h"

namespace assay::engine {

inline Codebook random_codebook(int dim, int n_codes, std::uint64_t seed) {
  Codebook book{
      .dim = dim, .n_codes = n_codes, .values = normals(kernels::row_major(n_codes, dim, 0), seed)};
  for (float& v : book.values) v = round_to_f16(v);
  return book;
}

struct Problem {
  Problem(int rows, int cols, std::uint64_t seed, int reach = 5)
      : n_rows(rows),
        n_cols(cols),
        pool(2),
        w(normals(kernels::row_major(rows, cols, 0), seed)),
        h(cols) {
    for (float& v : w) v *= 0.05f;
    const int n = 3 * cols;
    const std::vector<float> x = correlated_inputs(n, cols, reach, seed + 1);
    h.add(x.data(), n, pool);
    factor = *engine::factor(h, 0.01, "test");
  }
  double damped(int i, int j) const { return h.at(i, j) + (i == j ? factor.damping() : 0.0); }
  // tr((W − Q)(H + damping I)(W − Q)ᵀ).
  double error_of(const std::vector<double>& q) const {
    double sum = 0;
    for (int r = 0; r < n_rows; ++r)
      for (int i = 0; i < n_cols; ++i)
        for (int j = 0; j < n_cols; ++j) sum += diff(q, r, i) * damped(i, j) * diff(q, r, j);
    return sum;
  }
  double diff(const std::vector<double>& q, int r, int c) const {
    const auto at = kernels::row_major(r, n_cols, c);
    return static_cast<double>(w[at]) - q[at];
  }
  int n_rows, n_cols;
  ThreadPool pool;
  std::vector<float> w;
  Hessian h;
  HessianFactor factor;
};

// What the codes stand for, through the engine's own reader.
inline std::vector<double> decode(const VqEncoding& e, const Problem& p, const Codebook& book,
                                  int group) {
  const int bits = std::bit_width(static_cast<unsigned>(book.n_codes - 1));
  const auto words = pack_indices(e.indices, p.n_rows, p.n_cols / book.dim, bits);
  const kernels::VqMatrix m{.codes = std::as_bytes(std::span(words)).data(),
                            .scales = std::as_bytes(std::span(e.scales)).data(),
                            .codebook = book.values.data(),
                            .n_rows = p.n_rows,
                            .n_cols = p.n_cols,
                            .dim = book.dim,
                            .n_codes = book.n_codes,
                            .index_bits = bits,
                            .group = group};
  std::vector<double> q;
  for (int r = 0; r < p.n_rows; ++r)
    for (int c = 0; c < p.n_cols; ++c)
      q.push_back(static_cast<double>(kernels::weight_at(m, r, c)));
  return q;
}

}  // namespace assay::engine
