// exp, log, sin and cos from +, × and rounding alone: the same bits on every machine, whatever its
// libm.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

// A .cu file built with -fmad=false has the same bits.
#ifdef __CUDACC__
#define ASSAY_HOST_DEVICE __host__ __device__
#else
#define ASSAY_HOST_DEVICE
#endif

namespace assay::kernels {

// Relative error below 1e-15 for |x| < 700; 0 below -745, +inf above 709.78.
ASSAY_HOST_DEVICE inline double exp_f64(double x) {
  if (std::isnan(x)) return x;
  if (x > 709.78) return std::numeric_limits<double>::infinity();
  if (x < -745) return 0;
  constexpr double kLog2e = 1.4426950408889634074, kLn2Hi = 6.93147180369123816490e-01,
                   kLn2Lo = 1.90821492927058770002e-10;
  const double n = std::nearbyint(x * kLog2e);
  const double r = (x - n * kLn2Hi) - n * kLn2Lo;  // |r| <= ln2 / 2
  double p = 1.0 / 6227020800.0;                   // Taylor to r^13: the remainder is below 1e-17
  constexpr double kInverseFactorial[] = {1.0 / 479001600,
                                          1.0 / 39916800,
                                          1.0 / 3628800,
                                          1.0 / 362880,
                                          1.0 / 40320,
                                          1.0 / 5040,
                                          1.0 / 720,
                                          1.0 / 120,
                                          1.0 / 24,
                                          1.0 / 6,
                                          0.5,
                                          1.0,
                                          1.0};
  for (const double c : kInverseFactorial) p = p * r + c;
  // 2^n in two factors, so that results below 2^-1022 round once.
  const int e = static_cast<int>(n), half = e / 2;
  const auto pow2 = [](int k) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(k + 1023) << 52);
  };
  return p * pow2(half) * pow2(e - half);
}

// Natural logarithm of a normal, positive number; relative error below 1e-15. log(0) = -inf.
ASSAY_HOST_DEVICE inline double log_f64(double x) {
  if (std::isnan(x) || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x == 0) return -std::numeric_limits<double>::infinity();
  if (std::isinf(x)) return x;
  int e;
  double m = std::frexp(x, &e);  // m in [0.5, 1)
  if (m < 0.70710678118654752440) {
    m *= 2;
    --e;
  }
  // log m = 2 atanh(f), f = (m - 1) / (m + 1), |f| < 0.172: terms to f^21.
  const double f = (m - 1) / (m + 1), f2 = f * f;
  double s = 0;
  for (int k = 21; k >= 1; k -= 2) s = s * f2 + 1.0 / k;
  constexpr double kLn2Hi = 6.93147180369123816490e-01, kLn2Lo = 1.90821492927058770002e-10;
  return e * kLn2Hi + (2 * f * s + e * kLn2Lo);
}

// sin and cos for |x| < 1e7 (positions times the fastest rope frequency, 1 rad); absolute error
// below 1e-9 there, below 1e-14 for |x| < 1e5.
inline void sincos_f64(double x, double* sine, double* cosine) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kPio2Hi = 1.57079632673412561417e+00, kPio2Mid = 6.07710050630396597660e-11,
                   kPio2Lo = 2.02226624879595063154e-21;  // fdlibm's split: 33 + 33 + 53 bits
  const double n = std::nearbyint(x * kTwoOverPi);
  const double r = ((x - n * kPio2Hi) - n * kPio2Mid) - n * kPio2Lo;
  const double r2 = r * r;
  double s = -1.0 / 1307674368000.0, c = -1.0 / 87178291200.0;
  for (const double k :
       {1.0 / 6227020800.0, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0})
    s = s * r2 + k;
  for (const double k :
       {1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1.0})
    c = c * r2 + k;
  s *= r;
  switch (static_cast<std::int64_t>(n) & 3) {
    case 0:
      *sine = s;
      *cosine = c;
      return;
    case 1:
      *sine = c;
      *cosine = -s;
      return;
    case 2:
      *sine = -s;
      *cosine = -c;
      return;
    default:
      *sine = -c;
      *cosine = s;
      return;
  }
}

}  // namespace assay::kernels
