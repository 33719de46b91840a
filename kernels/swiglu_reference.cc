#include "kernels/elementary.h"
#include "kernels/swiglu.h"

namespace assay::kernels {

void swiglu_reference(const float* gate, const float* up, int n, float* y) {
  for (int i = 0; i < n; ++i) {
    const double g = gate[i];
    y[i] = static_cast<float>(g / (1.0 + exp_f64(-g)) * static_cast<double>(up[i]));
  }
}

}  // namespace assay::kernels
