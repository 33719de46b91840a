// Sigmoid router with a correction bias for the choice only (DeepSeek-V3, "noaux_tc", one group).
#pragma once

#include "kernels/cpu_target.h"

namespace assay::kernels {

struct RouteArgs {
  const float* logits;  // (n_experts): f32 x · f32 gateᵀ
  const float* bias;    // (n_experts): e_score_correction_bias
  int n_experts, top_k;
  bool normalise;  // divide the weights by (their sum + 1e-20)
  float scaling;   // routed_scaling_factor
  int* expert;     // (top_k), ascending expert index
  float* weight;   // (top_k)
  float* margin;   // one: score + bias of the last chosen minus that of the best not chosen; may be
                   // nullptr
};

// Among equal scores the lower expert wins.
void route_reference(const RouteArgs& args);
// In float32. A NaN logit ranks last. n_experts <= kMaxCpuExperts.
inline constexpr int kMaxCpuExperts = 1024;
void route_cpu(CpuTarget target, const RouteArgs& args);

}  // namespace assay::kernels
