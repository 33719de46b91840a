// A dot product in double: products of two floats are exact there, and the sum carries 29 guard
// bits.
#pragma once

namespace assay::kernels {

// Eight partial sums in a fixed order, so that the compiler may use whatever vectors it has without
// changing a bit.
inline double dot_f64(const float* a, const float* b, int n) {
  double partial[8] = {};
  int k = 0;
  for (; k + 8 <= n; k += 8)
    for (int j = 0; j < 8; ++j)
      partial[j] += static_cast<double>(a[k + j]) * static_cast<double>(b[k + j]);
  for (int j = 0; k < n; ++k, ++j)
    partial[j] += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return ((partial[0] + partial[4]) + (partial[2] + partial[6])) +
         ((partial[1] + partial[5]) + (partial[3] + partial[7]));
}

}  // namespace assay::kernels
