#include "kernels/moe_combine.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/moe_combine_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

void moe_combine(const MoeCombineArgs& a) {
  int i = 0;
  for (; i + 16 <= a.n; i += 16) {
    V16 sum = V16::zero();
    for (int k = 0; k < a.top_k; ++k)
      sum = fma(V16::set(a.weight[k]), V16::load(a.expert_out[k] + i), sum);
    sum = add(sum, V16::load(a.shared_out + i));
    add(V16::load(a.residual + i), sum).store(a.residual + i);
  }
  if (i < a.n) {
    const int n = a.n - i;
    V16 sum = V16::zero();
    for (int k = 0; k < a.top_k; ++k)
      sum = fma(V16::set(a.weight[k]), V16::load_n(a.expert_out[k] + i, n), sum);
    sum = add(sum, V16::load_n(a.shared_out + i, n));
    add(V16::load_n(a.residual + i, n), sum).store_n(a.residual + i, n);
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void moe_combine_cpu(CpuTarget target, const MoeCombineArgs& args) {
  ASSAY_CPU_CALL(target, moe_combine, args);
}

}  // namespace assay::kernels
#endif
