#include "kernels/cpu_target.h"

#include "base/check.h"
#include "hwy/targets.h"

namespace assay::kernels {

std::string_view cpu_target_name(CpuTarget target) {
  for (const CpuTargetEntry& entry : kCpuTargets)
    if (entry.target == target) return entry.name;
  CHECK(false) << static_cast<int>(target);
  return {};
}

std::vector<CpuTarget> usable_cpu_targets() {
  std::vector<CpuTarget> usable;
  // Highway's AVX2 includes FMA, BMI2 and F16C; its AVX3 is AVX-512 F, BW, CD, DQ and VL.
  const auto offer = [&](CpuTarget target, bool built, std::int64_t bit) {
    if (built && (hwy::SupportedTargets() & bit) != 0) usable.push_back(target);
  };
  offer(CpuTarget::kAvx512, (HWY_TARGETS & HWY_AVX3) != 0, HWY_AVX3);
  offer(CpuTarget::kAvx2, (HWY_TARGETS & HWY_AVX2) != 0, HWY_AVX2);
  return usable;
}

}  // namespace assay::kernels
