#include <cmath>
#include <limits>

#include "kernels/route.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/route_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/exp-inl.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

void sigmoid_all(const float* x, int n, float* y) {
  int i = 0;
  for (; i + 16 <= n; i += 16) sigmoid_f32(V16::load(x + i)).store(y + i);
  if (i < n) sigmoid_f32(V16::load_n(x + i, n - i)).store_n(y + i, n - i);
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void route_cpu(CpuTarget target, const RouteArgs& a) {
  CHECK(a.n_experts <= kMaxCpuExperts && a.top_k <= a.n_experts) << a.n_experts << " " << a.top_k;
  float score[kMaxCpuExperts], choice[kMaxCpuExperts];
  bool chosen[kMaxCpuExperts] = {};
  ASSAY_CPU_CALL(target, sigmoid_all, a.logits, a.n_experts, score);
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  for (int e = 0; e < a.n_experts; ++e) {
    const float c = score[e] + a.bias[e];
    choice[e] = std::isnan(c) ? kLowest : c;
  }
  // The best left, top_k times; one time more for the margin.
  const auto best_left = [&] {
    int best = -1;
    for (int e = 0; e < a.n_experts; ++e)
      if (!chosen[e] && (best < 0 || choice[e] > choice[best])) best = e;
    return best;
  };
  float last = 0;
  for (int i = 0; i < a.top_k; ++i) {
    const int e = best_left();
    chosen[e] = true;
    last = choice[e];
  }
  if (a.margin != nullptr)
    *a.margin =
        a.top_k < a.n_experts ? last - choice[best_left()] : std::numeric_limits<float>::infinity();
  int n = 0;
  float sum = 0;
  for (int e = 0; e < a.n_experts; ++e)
    if (chosen[e]) {
      a.expert[n++] = e;
      sum += score[e];
    }
  const float scale = a.normalise ? a.scaling / (sum + 1e-20f) : a.scaling;
  for (int i = 0; i < a.top_k; ++i) a.weight[i] = score[a.expert[i]] * scale;
}

}  // namespace assay::kernels
#endif
