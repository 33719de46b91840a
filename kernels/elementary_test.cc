// Against the machine's long double functions (64-bit mantissa on x86: 2048 times finer than
// double).
#include "kernels/elementary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"

namespace assay::kernels {
namespace {

static_assert(std::numeric_limits<long double>::digits >= 64, "needs an extended long double");

constexpr int kDraws = 300'000;

double uniform(int stream, int i, double lo, double hi) {
  return lo + (hi - lo) * uniform_at(31, stream, i);
}

double relative_error(double got, long double want) {
  return static_cast<double>(std::abs((got - want) / want));
}

TEST(ExpF64, KeepsItsRelativeBound) {
  double worst = 0, at = 0;
  const auto check = [&](double x) {
    const double error = relative_error(exp_f64(x), std::exp(static_cast<long double>(x)));
    if (error > worst) worst = error, at = x;
  };
  for (int i = 0; i < kDraws; ++i) {
    check(uniform(0, i, -700, 700));
    check(uniform(1, i, -1, 1));
    check(std::ldexp(uniform(2, i, -1, 1), -i % 60));  // small arguments
  }
  for (int n = -1009; n <= 1009; ++n) {  // where the reduction switches: (n + 1/2) ln 2
    const double edge = (n + 0.5) * 0.69314718055994530942;
    check(edge);
    check(std::nextafter(edge, 1000));
    check(std::nextafter(edge, -1000));
  }
  EXPECT_LT(worst, 1e-15) << "exp_f64(" << at << ")";
  RecordProperty("worst", std::to_string(worst / 1e-16) + "e-16");
}

TEST(ExpF64, RoundsSubnormalResultsOnce) {
  for (int i = 0; i < kDraws / 10; ++i) {
    const double x = uniform(3, i, -745, -700);
    const long double want = std::exp(static_cast<long double>(x));
    // Below 2^-1022 the spacing is fixed: half of it, and the relative bound above it.
    ASSERT_LE(std::abs(exp_f64(x) - want), 0x1p-1075L + 1e-15L * want) << x;
  }
}

TEST(ExpF64, HasTheStatedEnds) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(exp_f64(0.0), 1.0);
  EXPECT_EQ(exp_f64(-0.0), 1.0);
  EXPECT_EQ(exp_f64(-745.01), 0.0);
  EXPECT_EQ(exp_f64(-kInf), 0.0);
  EXPECT_EQ(exp_f64(709.79), kInf);
  EXPECT_EQ(exp_f64(kInf), kInf);
  EXPECT_LT(exp_f64(709.78), kInf);
  EXPECT_GT(exp_f64(-745.0), 0.0);
  EXPECT_TRUE(std::isnan(exp_f64(std::nan(""))));
}

TEST(LogF64, KeepsItsRelativeBound) {
  double worst = 0, at = 0;
  const auto check = [&](double x) {
    if (x == 1) return;
    const double error = relative_error(log_f64(x), std::log(static_cast<long double>(x)));
    if (error > worst) worst = error, at = x;
  };
  for (int i = 0; i < kDraws; ++i) {
    check(std::ldexp(uniform(4, i, 1, 2), i % 2046 - 1022));     // every normal exponent
    check(uniform(5, i, 0.5, 2));                                // around 1
    check(1 + std::ldexp(uniform(6, i, -1, 1), -(i % 52)));      // and ever closer to it
    check(0.70710678118654752440 + uniform(7, i, -1e-9, 1e-9));  // where the reduction switches
  }
  check(std::numeric_limits<double>::max());
  check(std::numeric_limits<double>::min());
  EXPECT_LT(worst, 1e-15) << "log_f64(" << at << ")";
  RecordProperty("worst", std::to_string(worst / 1e-16) + "e-16");
}

TEST(LogF64, HasTheStatedEnds) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(log_f64(1.0), 0.0);
  EXPECT_EQ(log_f64(0.0), -kInf);
  EXPECT_EQ(log_f64(kInf), kInf);
  EXPECT_TRUE(std::isnan(log_f64(-1.0)));
  EXPECT_TRUE(std::isnan(log_f64(std::nan(""))));
  EXPECT_NEAR(log_f64(0x1p-1074), -744.44007192138127, 1e-12);  // a subnormal
}

double worst_sincos_error(double limit, int stream, double* at) {
  double worst = 0;
  for (int i = 0; i < kDraws; ++i) {
    // Any number, a whole number (a position times 1 rad), and near a multiple of π/2.
    const double any = uniform(stream, i, -limit, limit);
    for (const double x : {any, std::nearbyint(any),
                           std::nearbyint(any * 0.63661977236758134308) * 1.5707963267948966}) {
      if (std::abs(x) >= limit) continue;
      double s, c;
      sincos_f64(x, &s, &c);
      const auto wide = static_cast<long double>(x);
      const auto error =
          static_cast<double>(std::max(std::abs(s - std::sin(wide)), std::abs(c - std::cos(wide))));
      if (error > worst) worst = error, *at = x;
    }
  }
  return worst;
}

TEST(SincosF64, KeepsItsAbsoluteBounds) {
  double at = 0;
  const double near_zero = worst_sincos_error(10, 8, &at);
  EXPECT_LT(near_zero, 1e-14) << "at " << at;
  const double below_1e5 = worst_sincos_error(1e5, 9, &at);
  EXPECT_LT(below_1e5, 1e-14) << "at " << at;
  const double below_1e7 = worst_sincos_error(1e7, 10, &at);
  EXPECT_LT(below_1e7, 1e-9) << "at " << at;
  RecordProperty("worst_1e5", std::to_string(below_1e5 / 1e-16) + "e-16");
  RecordProperty("worst_1e7", std::to_string(below_1e7 / 1e-10) + "e-10");
}

TEST(SincosF64, IsExactAtZeroAndOddAndEven) {
  double s, c;
  sincos_f64(0, &s, &c);
  EXPECT_EQ(s, 0.0);
  EXPECT_EQ(c, 1.0);
  for (int i = 0; i < 1000; ++i) {
    const double x = uniform(11, i, 0, 1e5);
    double minus_s, minus_c;
    sincos_f64(x, &s, &c);
    sincos_f64(-x, &minus_s, &minus_c);
    ASSERT_EQ(s, -minus_s) << x;
    ASSERT_EQ(c, minus_c) << x;
  }
}

}  // namespace
}  // namespace assay::kernels
