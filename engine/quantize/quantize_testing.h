// Random matrices for the quantiser's tests and benchmarks.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "base/rng.h"

namespace assay::engine {

// Standard normal (Box and Muller), a function of (seed, i) alone.
inline float normal_at(std::uint64_t seed, std::uint64_t i) {
  const double u = 1 - uniform_at(seed, 0, i), v = uniform_at(seed, 1, i);
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

inline std::vector<float> normals(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = normal_at(seed, i);
  return values;
}

// Inputs of a layer as they are in practice: neighbouring columns correlate (a moving average over
// `reach` of them) and a few columns are much larger than the others.
inline std::vector<float> correlated_inputs(int n_tokens, int dim, int reach, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(dim));
  const std::size_t width = static_cast<std::size_t>(dim) + static_cast<std::size_t>(reach);
  for (int t = 0; t < n_tokens; ++t) {
    double sum = 0;
    const std::size_t row = static_cast<std::size_t>(t) * width;
    for (int c = -reach; c < dim; ++c) {
      sum += normal_at(seed, row + static_cast<std::size_t>(c + reach));
      if (c < 0) continue;
      sum -= normal_at(seed, row + static_cast<std::size_t>(c));
      const float size = c % 61 == 7 ? 5.0f : 1.0f + 0.5f * std::sin(0.1f * static_cast<float>(c));
      x[static_cast<std::size_t>(t) * static_cast<std::size_t>(dim) + static_cast<std::size_t>(c)] =
          size * static_cast<float>(sum / std::sqrt(reach));
    }
  }
  return x;
}

}  // namespace assay::engine
