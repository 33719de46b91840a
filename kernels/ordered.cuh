// Unsigned integers in the order of floating-point numbers, for sorting and selecting by bits; −0
// is 0, NaN last.
#pragma once

namespace assay::kernels {

__device__ inline unsigned ordered(float value) {
  if (isnan(value)) return 0;
  const unsigned bits = __float_as_uint(value == 0.0f ? 0.0f : value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ inline unsigned long long ordered(double value) {
  if (isnan(value)) return 0;
  constexpr unsigned long long kSign = 1ull << 63;
  const auto bits =
      static_cast<unsigned long long>(__double_as_longlong(value == 0.0 ? 0.0 : value));
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

// The number again; of NaN's, another NaN.
__device__ inline float float_of_ordered(unsigned v) {
  return __uint_as_float((v & 0x80000000u) != 0 ? v & 0x7FFFFFFFu : ~v);
}
__device__ inline double double_of_ordered(unsigned long long v) {
  constexpr unsigned long long kSign = 1ull << 63;
  return __longlong_as_double(static_cast<long long>((v & kSign) != 0 ? v & ~kSign : ~v));
}

}  // namespace assay::kernels
