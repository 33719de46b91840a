// Random data for the kernel benchmarks, and the check that a kernel is right before it is timed.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu_target.h"

namespace assay::kernels {

inline std::vector<float> bench_floats(std::size_t n, std::uint64_t seed) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(2 * uniform_at(seed, 0, i) - 1);
  return v;
}

// Largest difference, relative to the largest expected value; a NaN is infinitely far off.
inline double relative_error(const std::vector<float>& expected, const std::vector<float>& got) {
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double off = std::abs(static_cast<double>(expected[i]) - static_cast<double>(got[i]));
    worst = std::isnan(off) ? std::numeric_limits<double>::infinity() : std::max(worst, off);
    if (std::isinf(worst)) break;
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}

// Whether each value is within `relative` of the expected one, or `absolute`; a NaN is not.
inline bool all_near(const std::vector<float>& expected, const std::vector<float>& got,
                     double relative, double absolute) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto e = static_cast<double>(expected[i]), g = static_cast<double>(got[i]);
    if (!(std::abs(g - e) <= relative * std::abs(e) + absolute)) return false;
  }
  return true;
}

// Σ w x, and how large its terms are together.
struct ReferenceSum {
  double sum = 0, size = 0;
  void add(double w, double x) {
    sum += w * x;
    size += std::abs(w * x);
  }
  // Of a chain in float32: each product passes through at most n_terms + 3 roundings.
  bool is_near(float got, int n_terms) const {
    return std::abs(static_cast<double>(got) - sum) <= (n_terms + 3) * 0x1p-24 * size;
  }
};

inline std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

inline std::vector<float> poison(std::size_t n) { return std::vector<float>(n, std::nanf("")); }

}  // namespace assay::kernels
