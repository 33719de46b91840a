// Float32 as two binary16 values, high + low: 22 bits of it, which tensor cores multiply as they
// are. Beyond 65504 it is an infinity and a NaN, never a wrong number.
#pragma once

#include <cuda_fp16.h>

namespace assay::kernels {

struct SplitHalf {
  __half high, low;
};
__device__ inline SplitHalf split_half(float x) {
  const __half high = __float2half_rn(x);
  return {high, __float2half_rn(x - __half2float(high))};
}
__device__ inline float join_half(__half high, __half low) {
  return __half2float(high) + __half2float(low);
}

// The power of two that brings values of which this is the largest below 2^15 (it to 2^14 or more,
// but for subnormal ones, which get 2^126), and what undoes it: both exact, and normal numbers.
struct HalfScale {
  float scale, undo;
};
__device__ inline HalfScale half_scale(float largest) {
  const int exponent = min(127 + 14 - static_cast<int>(__float_as_uint(largest) >> 23), 126);
  const auto power_of_two = [](int e) {
    return __uint_as_float(static_cast<unsigned>(127 + e) << 23);
  };
  return {power_of_two(exponent), power_of_two(-exponent)};
}

// Two values side by side, as a register of a matrix fragment has them: lower address first.
struct SplitHalf2 {
  unsigned high, low;
};
__device__ inline SplitHalf2 split_half2(float x, float y) {
  const auto bits = [](__half2 v) { return *reinterpret_cast<const unsigned*>(&v); };
  const __half2 high = __floats2half2_rn(x, y);  // one instruction, which one value takes as well
  const float2 held = __half22float2(high);
  return {bits(high), bits(__floats2half2_rn(x - held.x, y - held.y))};
}

}  // namespace assay::kernels
