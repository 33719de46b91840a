// exp in float32 from FMAs alone: the same bits on every instruction set.

#if defined(ASSAY_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASSAY_KERNELS_EXP_INL_H_
#undef ASSAY_KERNELS_EXP_INL_H_
#else
#define ASSAY_KERNELS_EXP_INL_H_
#endif

#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

// At most 2 units in the last place; exp(0) = 1, exp(-inf) = 0, and NaN stays NaN.
// x = n ln2 + r with |r| <= ln2/2; the Taylor remainder after r^7 is below r^8/40320 = 5.2e-9 of a
// result near 1, a tenth of half a unit. ln2 in two parts: n * kLn2Hi is exact (15 + 8 bits).
template <class V>
HWY_INLINE V exp_f32(V x) {
  // Beyond these the result is 0 or infinite anyway; within them 2^n fits two normal factors.
  // max and min give their second operand where it is NaN.
  x = max(V::set(-104.0f), min(V::set(89.0f), x));
  const V n = round(mul(x, V::set(0x1.715476p+0f)));
  V r = fma(n, V::set(-0x1.62e4p-1f), x);
  r = fma(n, V::set(-0x1.7f7d1cp-20f), r);
  V p = V::set(1.0f / 5040);
  p = fma(p, r, V::set(1.0f / 720));
  p = fma(p, r, V::set(1.0f / 120));
  p = fma(p, r, V::set(1.0f / 24));
  p = fma(p, r, V::set(1.0f / 6));
  p = fma(p, r, V::set(0.5f));
  p = fma(p, r, V::set(1.0f));
  p = fma(p, r, V::set(1.0f));
  return scale_by_pow2(p, n);
}

// 1 / (1 + exp(-x))
template <class V>
HWY_INLINE V sigmoid_f32(V x) {
  const V one = V::set(1.0f);
  return div(one, add(one, exp_f32(sub(V::zero(), x))));
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD
#endif  // include guard
