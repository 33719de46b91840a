#include "kernels/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/exp-inl.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

namespace {
HWY_INLINE V16 silu_times(V16 gate, V16 up) {
  return mul(div(gate, add(V16::set(1.0f), exp_f32(sub(V16::zero(), gate)))), up);
}
}  // namespace

void swiglu(const float* gate, const float* up, int n, float* y) {
  int i = 0;
  for (; i + 16 <= n; i += 16) silu_times(V16::load(gate + i), V16::load(up + i)).store(y + i);
  if (i < n)
    silu_times(V16::load_n(gate + i, n - i), V16::load_n(up + i, n - i)).store_n(y + i, n - i);
}

void swiglu_in_turn(const float* gate_up, int n, float* y) {
  for (int i = 0; i < n; i += 16, gate_up += 32) {
    const V16 value = silu_times(V16::load(gate_up), V16::load(gate_up + 16));
    if (n - i >= 16)
      value.store(y + i);
    else
      value.store_n(y + i, n - i);
  }
}

void exp_all(const float* x, int n, float* y) {
  int i = 0;
  for (; i + 16 <= n; i += 16) exp_f32(V16::load(x + i)).store(y + i);
  if (i < n) exp_f32(V16::load_n(x + i, n - i)).store_n(y + i, n - i);
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void swiglu_cpu(CpuTarget target, const float* gate, const float* up, int n, float* y) {
  ASSAY_CPU_CALL(target, swiglu, gate, up, n, y);
}

void swiglu_in_turn_cpu(CpuTarget target, const float* gate_up, int n, float* y) {
  ASSAY_CPU_CALL(target, swiglu_in_turn, gate_up, n, y);
}

void exp_cpu(CpuTarget target, const float* x, int n, float* y) {
  ASSAY_CPU_CALL(target, exp_all, x, n, y);
}

}  // namespace assay::kernels
#endif
