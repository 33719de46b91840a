#include <cmath>

#include "kernels/elementary.h"
#include "kernels/rope.h"

namespace assay::kernels {

RopeTable::RopeTable(double theta, int dim)
    : dim_(dim), inverse_frequency_(static_cast<std::size_t>(dim / 2)) {
  // transformers: inv_freq = 1 / theta^(arange(0, dim, 2) / dim), every step in float32. At
  // position 16,000 half a unit in the last place of inv_freq already turns a pair by 5e-4 rad, so
  // the roundings are part of the definition.
  const double log_theta = log_f64(theta);
  for (int i = 0; i < dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    const float power = static_cast<float>(exp_f64(log_theta * static_cast<double>(exponent)));
    inverse_frequency_[i] = 1.0f / power;
  }
}

void RopeTable::angles(int position, float* cosine, float* sine) const {
  for (int i = 0; i < dim_ / 2; ++i) {
    const float angle = static_cast<float>(position) * inverse_frequency_[i];
    double s, c;
    sincos_f64(static_cast<double>(angle), &s, &c);
    cosine[i] = static_cast<float>(c);
    sine[i] = static_cast<float>(s);
  }
}

void rope_reference(const float* cosine, const float* sine, int dim, bool interleaved, float* x) {
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    float& a = interleaved ? x[2 * i] : x[i];
    float& b = interleaved ? x[2 * i + 1] : x[i + half];
    const double c = cosine[i], s = sine[i], a0 = a, b0 = b;
    a = static_cast<float>(a0 * c - b0 * s);
    b = static_cast<float>(b0 * c + a0 * s);
  }
}

}  // namespace assay::kernels
