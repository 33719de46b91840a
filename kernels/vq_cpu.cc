#include "kernels/vq.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vq_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"
#include "kernels/vq_codewords-inl.h"
#include "kernels/vq_partial_sums-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

void vq_project(const VqProjectArgs& a) {
  for (std::size_t i = 0; i < a.products.size(); ++i) {
    const VqProduct& product = a.products[i];
    if (product.w->method() == VqMethod::kCodewords) {
      project_codewords(product, a);
    } else if (std::none_of(&a.products[0], &product, [&](const VqProduct& earlier) {
                 return share_tables(earlier, product);
               })) {
      project_partial_sums(product, a);  // and those that share its tables
    }
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

std::size_t vq_scratch() { return sizeof(VqScratch) / sizeof(float); }

void vq_project_cpu(CpuTarget target, const VqProjectArgs& args) {
  ASSAY_CPU_CALL(target, vq_project, args);
}

}  // namespace assay::kernels
#endif
