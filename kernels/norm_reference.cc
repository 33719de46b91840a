#include <cmath>

#include "kernels/norm.h"

namespace assay::kernels {

void rms_norm_reference(const float* x, const float* weight, float eps, int n, float* y) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double scale = 1.0 / std::sqrt(sum / n + static_cast<double>(eps));
  for (int i = 0; i < n; ++i)
    y[i] = static_cast<float>(static_cast<double>(weight[i]) * (static_cast<double>(x[i]) * scale));
}

void layer_norm_reference(const float* x, const float* weight, const float* bias, float eps, int n,
                          float* y) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  const double mean = sum / n;
  double squares = 0;
  for (int i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - mean;
    squares += d * d;
  }
  const double scale = 1.0 / std::sqrt(squares / n + static_cast<double>(eps));
  for (int i = 0; i < n; ++i)
    y[i] = static_cast<float>(static_cast<double>(weight[i]) *
                                  ((static_cast<double>(x[i]) - mean) * scale) +
                              static_cast<double>(bias[i]));
}

}  // namespace assay::kernels
