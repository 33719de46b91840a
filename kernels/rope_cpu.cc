#include "kernels/rope.h"

namespace assay::kernels {

void rope_cpu(const float* cosine, const float* sine, int dim, bool interleaved, float* x) {
  const int half = dim / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
  for (int i = 0; i < half; ++i) {
    float& a = x[step * i];
    float& b = x[step * i + other];
    const float a0 = a, b0 = b;
    a = a0 * cosine[i] - b0 * sine[i];
    b = b0 * cosine[i] + a0 * sine[i];
  }
}

}  // namespace assay::kernels
