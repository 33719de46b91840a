#include <cpuid.h>

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

namespace {

// Intel's cores with AVX-VNNI (Alder Lake, Sapphire Rapids and later) gather eight floats faster
// than eight loads add them, and need none of the microcode that makes their predecessors' gathers
// slow. AMD's gathers are slower than loads.
bool gathers_are_fast() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAvxVnni = 1u << 4;
  return __builtin_cpu_is("intel") != 0 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
         (a & kAvxVnni) != 0;
}

std::vector<VqFetch> find_usable(CpuTarget target) {
  std::vector<VqFetch> usable = {VqFetch::kScalar, VqFetch::kGather};
  if (gathers_are_fast()) std::swap(usable[0], usable[1]);
  if (target == CpuTarget::kAvx512 && have_vbmi()) usable.insert(usable.begin(), VqFetch::kVbmi);
  return usable;
}

VqFetch best_fetch(CpuTarget target) {
  static const VqFetch avx512 = find_usable(CpuTarget::kAvx512).front(),
                       avx2 = find_usable(CpuTarget::kAvx2).front();
  return target == CpuTarget::kAvx512 ? avx512 : avx2;
}

}  // namespace

std::string_view vq_fetch_name(VqFetch fetch) {
  switch (fetch) {
    case VqFetch::kBest:
      return "best";
    case VqFetch::kVbmi:
      return "vbmi";
    case VqFetch::kGather:
      return "gather";
    case VqFetch::kScalar:
      return "scalar";
  }
  CHECK(false) << static_cast<int>(fetch);
  return {};
}

std::vector<VqFetch> usable_vq_fetches(CpuTarget target) { return find_usable(target); }

std::size_t vq_scratch() { return sizeof(VqScratch) / sizeof(float); }

void vq_project_cpu(CpuTarget target, const VqProjectArgs& args) {
  VqProjectArgs a = args;
  if (a.fetch == VqFetch::kBest) a.fetch = best_fetch(target);
  CHECK(a.fetch != VqFetch::kVbmi || target == CpuTarget::kAvx512)
      << "VBMI is part of " << cpu_target_name(CpuTarget::kAvx512) << ", asked for with "
      << cpu_target_name(target);
  ASSAY_CPU_CALL(target, vq_project, a);
}

}  // namespace assay::kernels
#endif
