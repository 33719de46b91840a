#include <cmath>

#include "kernels/norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

// The 16 lanes in a fixed tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
HWY_INLINE float sum_lanes(V16 v) {
  float lane[16];
  v.store(lane);
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

HWY_INLINE V16 load_up_to(const float* p, int n) {
  return n >= 16 ? V16::load(p) : V16::load_n(p, n);
}
HWY_INLINE void store_up_to(V16 v, float* p, int n) {
  if (n >= 16)
    v.store(p);
  else
    v.store_n(p, n);
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int n, float* y) {
  V16 squares = V16::zero();
  for (int i = 0; i < n; i += 16) {
    const V16 v = load_up_to(x + i, n - i);  // lanes beyond n are zero and add zero
    squares = fma(v, v, squares);
  }
  const float mean = sum_lanes(squares) / static_cast<float>(n);
  const V16 scale = V16::set(1.0f / std::sqrt(mean + eps));
  for (int i = 0; i < n; i += 16)
    store_up_to(mul(load_up_to(weight + i, n - i), mul(load_up_to(x + i, n - i), scale)), y + i,
                n - i);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int n,
                float* y) {
  V16 total = V16::zero();
  for (int i = 0; i < n; i += 16) total = add(total, load_up_to(x + i, n - i));
  const V16 mean = V16::set(sum_lanes(total) / static_cast<float>(n));

  V16 squares = V16::zero();
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const V16 d = sub(V16::load(x + i), mean);
    squares = fma(d, d, squares);
  }
  if (i < n) {  // a lane beyond n would add mean²
    float deviation[16] = {};
    sub(V16::load_n(x + i, n - i), mean).store_n(deviation, n - i);
    const V16 d = V16::load(deviation);
    squares = fma(d, d, squares);
  }
  const float variance = sum_lanes(squares) / static_cast<float>(n);
  const V16 scale = V16::set(1.0f / std::sqrt(variance + eps));
  for (i = 0; i < n; i += 16) {
    const V16 d = sub(load_up_to(x + i, n - i), mean);
    store_up_to(fma(load_up_to(weight + i, n - i), mul(d, scale), load_up_to(bias + i, n - i)),
                y + i, n - i);
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void rms_norm_cpu(CpuTarget target, const float* x, const float* weight, float eps, int n,
                  float* y) {
  ASSAY_CPU_CALL(target, rms_norm, x, weight, eps, n, y);
}

void layer_norm_cpu(CpuTarget target, const float* x, const float* weight, const float* bias,
                    float eps, int n, float* y) {
  ASSAY_CPU_CALL(target, layer_norm, x, weight, bias, eps, n, y);
}

}  // namespace assay::kernels
#endif
