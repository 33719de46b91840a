// The sum over a token's experts.
#pragma once

#include "kernels/cpu_target.h"

namespace assay::kernels {

struct MoeCombineArgs {
  const float* const* expert_out;  // (top_k) pointers to n values, in ascending order of expert
  const float* weight;             // (top_k)
  int top_k;
  const float* shared_out;  // (n): not scaled
  int n;
  float* residual;  // (n): += Σ_k weight_k · expert_out_k (a chain from zero) + shared_out
};
void moe_combine_cpu(CpuTarget target, const MoeCombineArgs& args);

}  // namespace assay::kernels
