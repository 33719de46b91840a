#include <cmath>

#include "kernels/dot_reference.h"
#include "kernels/indexer.h"

namespace assay::kernels {

void index_scores_reference(const IndexScoreArgs& a) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(a.head_dim));
  for (int t = 0; t < a.n_keys; ++t) {
    double score = 0;
    for (int h = 0; h < a.n_heads; ++h) {
      const double dot = dot_f64(a.q + static_cast<std::ptrdiff_t>(h) * a.head_dim,
                                 a.k + static_cast<std::ptrdiff_t>(t) * a.head_dim, a.head_dim) *
                         scale;
      if (dot > 0) score += static_cast<double>(a.weights[h]) * dot;
    }
    a.scores[t] = static_cast<float>(score);
  }
}

}  // namespace assay::kernels
