// Random data for the kernel benchmarks, and the check that a kernel is right before it is timed.
#pragma once

#include <benchmark/benchmark.h>

#include <cmath>
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

// Largest difference, relative to the largest expected value.
inline double relative_error(const std::vector<float>& expected, const std::vector<float>& got) {
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    worst =
        std::max(worst, std::abs(static_cast<double>(expected[i]) - static_cast<double>(got[i])));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}

}  // namespace assay::kernels
