// Vectors of 16 and of 8 floats, for each instruction set that has fused multiply-add. Include
// after foreach_target.h; the code using it sits between `#if ASSAY_CPU_SIMD` and `#endif`.
//
// A kernel is written once, over 16 lanes: one register of AVX-512, two of AVX2. A lane is one
// output element and every operation is lane-wise, so both give the same bits.

#if defined(ASSAY_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASSAY_KERNELS_SIMD_INL_H_
#undef ASSAY_KERNELS_SIMD_INL_H_
#else
#define ASSAY_KERNELS_SIMD_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"

#undef ASSAY_CPU_SIMD
#define ASSAY_CPU_SIMD (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

#if ASSAY_CPU_SIMD

HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// One register of kLanes floats.
template <int kWidth>
struct Register {
  static constexpr int kLanes = kWidth;
  using D = hn::CappedTag<float, kWidth>;
  using DI = hn::CappedTag<std::int32_t, kWidth>;
  using DU = hn::CappedTag<std::uint32_t, kWidth>;
  hn::Vec<D> v;

  static HWY_INLINE Register zero() { return {hn::Zero(D())}; }
  static HWY_INLINE Register set(float x) { return {hn::Set(D(), x)}; }
  static HWY_INLINE Register load(const float* p) { return {hn::LoadU(D(), p)}; }
  // The first n (1 … kLanes) lanes, the others zero; memory beyond them is not touched.
  static HWY_INLINE Register load_n(const float* p, int n) {
    return {hn::MaskedLoad(hn::FirstN(D(), static_cast<std::size_t>(n)), D(), p)};
  }
  HWY_INLINE void store(float* p) const { hn::StoreU(v, D(), p); }
  HWY_INLINE void store_n(float* p, int n) const {
    hn::BlendedStore(v, hn::FirstN(D(), static_cast<std::size_t>(n)), D(), p);
  }
  // Two bfloat16 in a word: the even column in its low half, the odd one in its high half.
  static HWY_INLINE Register even(const std::uint32_t* words) {
    return {hn::BitCast(D(), hn::ShiftLeft<16>(hn::LoadU(DU(), words)))};
  }
  static HWY_INLINE Register odd(const std::uint32_t* words) {
    return {hn::BitCast(D(), hn::And(hn::LoadU(DU(), words), hn::Set(DU(), 0xFFFF0000u)))};
  }
};

template <int W>
HWY_INLINE Register<W> fma(Register<W> a, Register<W> b, Register<W> c) {  // a * b + c
  return {hn::MulAdd(a.v, b.v, c.v)};
}
template <int W>
HWY_INLINE Register<W> add(Register<W> a, Register<W> b) {
  return {hn::Add(a.v, b.v)};
}
template <int W>
HWY_INLINE Register<W> sub(Register<W> a, Register<W> b) {
  return {hn::Sub(a.v, b.v)};
}
template <int W>
HWY_INLINE Register<W> mul(Register<W> a, Register<W> b) {
  return {hn::Mul(a.v, b.v)};
}
template <int W>
HWY_INLINE Register<W> div(Register<W> a, Register<W> b) {
  return {hn::Div(a.v, b.v)};
}
// x86: where an operand is NaN the result is b.
template <int W>
HWY_INLINE Register<W> max(Register<W> a, Register<W> b) {
  return {hn::Max(a.v, b.v)};
}
template <int W>
HWY_INLINE Register<W> min(Register<W> a, Register<W> b) {
  return {hn::Min(a.v, b.v)};
}
template <int W>
HWY_INLINE Register<W> round(Register<W> a) {  // to the nearest integer, ties to even
  return {hn::Round(a.v)};
}
// a < b ? yes : no
template <int W>
HWY_INLINE Register<W> if_less(Register<W> a, Register<W> b, Register<W> yes, Register<W> no) {
  return {hn::IfThenElse(hn::Lt(a.v, b.v), yes.v, no.v)};
}
// x * 2^n for a whole n in [-252, 252], in two factors so that a subnormal result rounds once.
template <int W>
HWY_INLINE Register<W> scale_by_pow2(Register<W> x, Register<W> n) {
  using R = Register<W>;
  const auto bias = hn::Set(typename R::DI(), 127);
  const auto whole = hn::ConvertTo(typename R::DI(), n.v);
  const auto half = hn::ShiftRight<1>(whole);
  const auto rest = hn::Sub(whole, half);
  const auto a = hn::BitCast(typename R::D(), hn::ShiftLeft<23>(hn::Add(half, bias)));
  const auto b = hn::BitCast(typename R::D(), hn::ShiftLeft<23>(hn::Add(rest, bias)));
  return {hn::Mul(hn::Mul(x.v, a), b)};
}

using V8 = Register<8>;

#if HWY_TARGET == HWY_AVX3
using V16 = Register<16>;
#else
struct V16 {
  static constexpr int kLanes = 16;
  V8 lo, hi;

  static HWY_INLINE V16 zero() { return {V8::zero(), V8::zero()}; }
  static HWY_INLINE V16 set(float x) {
    const V8 v = V8::set(x);
    return {v, v};
  }
  static HWY_INLINE V16 load(const float* p) { return {V8::load(p), V8::load(p + 8)}; }
  static HWY_INLINE V16 load_n(const float* p, int n) {
    return {V8::load_n(p, std::min(n, 8)), n > 8 ? V8::load_n(p + 8, n - 8) : V8::zero()};
  }
  HWY_INLINE void store(float* p) const {
    lo.store(p);
    hi.store(p + 8);
  }
  HWY_INLINE void store_n(float* p, int n) const {
    lo.store_n(p, std::min(n, 8));
    if (n > 8) hi.store_n(p + 8, n - 8);
  }
  static HWY_INLINE V16 even(const std::uint32_t* words) {
    return {V8::even(words), V8::even(words + 8)};
  }
  static HWY_INLINE V16 odd(const std::uint32_t* words) {
    return {V8::odd(words), V8::odd(words + 8)};
  }
};
HWY_INLINE V16 fma(V16 a, V16 b, V16 c) { return {fma(a.lo, b.lo, c.lo), fma(a.hi, b.hi, c.hi)}; }
HWY_INLINE V16 add(V16 a, V16 b) { return {add(a.lo, b.lo), add(a.hi, b.hi)}; }
HWY_INLINE V16 sub(V16 a, V16 b) { return {sub(a.lo, b.lo), sub(a.hi, b.hi)}; }
HWY_INLINE V16 mul(V16 a, V16 b) { return {mul(a.lo, b.lo), mul(a.hi, b.hi)}; }
HWY_INLINE V16 div(V16 a, V16 b) { return {div(a.lo, b.lo), div(a.hi, b.hi)}; }
HWY_INLINE V16 max(V16 a, V16 b) { return {max(a.lo, b.lo), max(a.hi, b.hi)}; }
HWY_INLINE V16 min(V16 a, V16 b) { return {min(a.lo, b.lo), min(a.hi, b.hi)}; }
HWY_INLINE V16 round(V16 a) { return {round(a.lo), round(a.hi)}; }
HWY_INLINE V16 if_less(V16 a, V16 b, V16 yes, V16 no) {
  return {if_less(a.lo, b.lo, yes.lo, no.lo), if_less(a.hi, b.hi, yes.hi, no.hi)};
}
HWY_INLINE V16 scale_by_pow2(V16 x, V16 n) {
  return {scale_by_pow2(x.lo, n.lo), scale_by_pow2(x.hi, n.hi)};
}
#endif

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ASSAY_CPU_SIMD
#endif  // include guard
