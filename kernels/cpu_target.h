// The instruction sets that the `cpu` kernels are compiled for. Every kernel gives the same bits on
// each.
#pragma once

#include <string_view>
#include <vector>

namespace assay::kernels {

enum class CpuTarget { kAvx512, kAvx2 };

struct CpuTargetEntry {
  CpuTarget target;
  std::string_view name;
};

// Best first.
inline constexpr CpuTargetEntry kCpuTargets[] = {{CpuTarget::kAvx512, "avx512"},
                                                 {CpuTarget::kAvx2, "avx2"}};

std::string_view cpu_target_name(CpuTarget target);

// Those that this build has and this machine can run, best first. All have fused multiply-add;
// empty on a machine without it.
std::vector<CpuTarget> usable_cpu_targets();

}  // namespace assay::kernels
