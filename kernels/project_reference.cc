#include <vector>

#include "kernels/dot_reference.h"
#include "kernels/project.h"

namespace assay::kernels {

void project_reference(const WeightMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate) {
  std::vector<float> row(static_cast<std::size_t>(w.n_cols));
  for (int r = 0; r < w.n_rows; ++r) {
    for (int k = 0; k < w.n_cols; ++k)
      row[k] = weight_at(w, static_cast<std::int64_t>(r) * w.n_cols + k);
    for (int t = 0; t < n_tokens; ++t) {
      const double sum = dot_f64(row.data(), x + static_cast<std::int64_t>(t) * x_stride, w.n_cols);
      float& out = y[static_cast<std::int64_t>(t) * y_stride + r];
      out = static_cast<float>(accumulate ? static_cast<double>(out) + sum : sum);
    }
  }
}

}  // namespace assay::kernels
