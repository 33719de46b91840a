// What the tests of the cpu kernels share: random data, every target in turn, bitwise comparison.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu_target.h"

namespace assay::kernels {

// Uniform in ± size.
inline std::vector<float> random_floats(std::size_t n, std::uint64_t seed, double size = 1) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] = static_cast<float>(size * (2 * uniform_at(seed, 0, i) - 1));
  return v;
}

// Whole numbers in -size … size: sums of their products are exact in float32 and float64 alike.
inline std::vector<float> random_integers(std::size_t n, std::uint64_t seed, int size = 4) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] = static_cast<float>(std::floor(uniform_at(seed, 0, i) * (2 * size + 1)) - size);
  return v;
}

inline std::vector<std::uint16_t> to_bf16(const std::vector<float>& v) {
  std::vector<std::uint16_t> out(v.size());
  for (std::size_t i = 0; i < v.size(); ++i)
    out[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v[i]) >> 16);
  return out;
}

// "" if every bit is equal; any NaN equals any NaN.
inline std::string first_difference(const std::vector<float>& expected,
                                    const std::vector<float>& got) {
  if (expected.size() != got.size())
    return std::to_string(got.size()) + " values, not " + std::to_string(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
    if (std::bit_cast<std::uint32_t>(expected[i]) != std::bit_cast<std::uint32_t>(got[i]))
      return "[" + std::to_string(i) + "] " + std::to_string(got[i]) + ", expected " +
             std::to_string(expected[i]);
  }
  return "";
}

// "" if |got - expected| <= tolerance[i] everywhere, else the worst coordinate. First of all NaN
// and infinities must be where they are expected: no comparison with a NaN holds, so none may come
// between it and the verdict.
inline std::string worst_beyond(const std::vector<float>& expected, const std::vector<float>& got,
                                const std::vector<double>& tolerance) {
  if (expected.size() != got.size() || expected.size() != tolerance.size())
    return std::to_string(got.size()) + " values and " + std::to_string(tolerance.size()) +
           " tolerances, not " + std::to_string(expected.size());
  const auto at = [&](std::size_t i) {
    return "[" + std::to_string(i) + "] " + std::to_string(got[i]) + ", expected " +
           std::to_string(expected[i]) + " ± " + std::to_string(tolerance[i]);
  };
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const bool same = std::isnan(expected[i]) ? std::isnan(got[i]) : expected[i] == got[i];
    if (!same && !(std::isfinite(expected[i]) && std::isfinite(got[i]))) return at(i);
    if (std::isfinite(expected[i]) && !(tolerance[i] >= 0)) return at(i) + ": no tolerance";
  }
  double worst = 1;
  std::string where;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(expected[i])) continue;
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (error > worst * tolerance[i]) worst = error / tolerance[i], where = at(i);
  }
  return where.empty() ? "" : "worst at " + where;
}
inline void expect_within(const std::vector<float>& expected, const std::vector<float>& got,
                          const std::vector<double>& tolerance) {
  EXPECT_EQ(worst_beyond(expected, got, tolerance), "");
}

class EveryTarget : public testing::TestWithParam<CpuTarget> {};
#define ASSAY_FOR_EVERY_TARGET(suite)                                            \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(suite);                          \
  INSTANTIATE_TEST_SUITE_P(Cpu, suite, testing::ValuesIn(usable_cpu_targets()),  \
                           [](const testing::TestParamInfo<CpuTarget>& target) { \
                             return std::string(cpu_target_name(target.param));  \
                           })

}  // namespace assay::kernels
