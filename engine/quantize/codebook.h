// Codebooks: weighted k-means over normalised sub-vectors, and their refit once the codes are
// chosen.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/quantize/stop.h"

namespace assay::engine {

struct Codebook {
  int dim = 0, n_codes = 0;
  std::vector<float> values;  // (n_codes, dim), each a binary16 value
};

// The scale that a group of n weights begins with: their standard deviation, rounded to binary16.
float initial_scale(const float* w, int n);

struct KMeansOptions {
  int n_codes = 256;
  int max_iterations = 50;
  double tolerance = 1e-4;  // stop once an iteration lowers the cost by a smaller share
  std::uint64_t seed = 0;
};

struct KMeansHooks {
  // "first centres" of all codewords, then "iteration" of max_iterations, which may end sooner.
  std::function<void(std::string_view what, int done, int total)> on_progress;
  Stop* stop = nullptr;  // asked at every first centre, and at every block of 64 points
};

struct KMeansResult {
  Codebook codebook;
  double cost;  // Σ over points of Σ_i w_i (x_i − c_i)², with the rounded codebook
  int n_iterations;
  int n_reseeded;  // empty clusters that were given a far point, over all iterations
};

// Weighted k-means (GPTVQ, van Baalen 2024, arXiv:2402.15319, section 3.2): points (n_points, dim)
// are sub-vectors divided by their scale, weights (n_points, dim) are scale² times the column's
// diagonal of the Hessian, so that the cost is the weighted error of the matrix itself. Seeded by
// k-means++ (Arthur and Vassilvitskii 2007) on at most 64 evenly spaced points per codeword, then
// Lloyd's iterations; clusters that become empty are given the points farthest from theirs. dim is
// 1, 2, 4, 8 or 16; with dim 1 the result is a Lloyd-Max quantiser. The same bits for any pool.
// Errors: fewer points than codewords, values that are not finite, negative weights, a stop.
Result<KMeansResult> fit_codebook(const float* points, const float* weights, std::int64_t n_points,
                                  int dim, const KMeansOptions& options, ThreadPool& pool,
                                  const KMeansHooks& hooks = {});

// Least squares for codewords when codes and scales are fixed: gathers, over any number of
// matrices in a fixed order, Σ h s w and Σ h s² of each codeword and dimension; their ratio
// minimises Σ h (w − s c)², h being the diagonal of the Hessian.
class CodebookRefit {
 public:
  explicit CodebookRefit(const Codebook& codebook);

  // values (n_rows, n_cols): the weights, or the targets that the sweep compensated; indices
  // (n_rows, n_cols / dim); scales (n_rows, n_groups) binary16, a group being `group` columns;
  // diagonal (n_cols).
  void add(const float* values, int n_rows, int n_cols, const std::uint16_t* indices,
           const std::uint16_t* scales, int group, const double* diagonal);

  // Rounded to binary16; a codeword or dimension without weight stays as it was.
  Codebook codebook() const;

 private:
  Codebook before_;
  std::vector<double> numerator_, denominator_;  // (n_codes, dim)
};

}  // namespace assay::engine
