// The last launch of a layer in partial sums or by slices: what down left of its slices is added
// up, expert by expert, in order, and with the shared experts' output to the residual. Where that
// output is still to be made, of a GPTQ matrix in units, it is made by the same launch, most of it
// while the launch ahead is still running.
#pragma once

#include "kernels/moe_cuda.h"

namespace assay::kernels {

struct MoeCombineCuda {
  const float* sums;  // of down: (n_tokens, top_k, most_slices, padded rows)
  int most_slices;
  bool all_have_most;  // or an expert's form says how many
};
// `args`: of tokens that have room for their sums. Two launches at least are behind what made its
// choice and shared_down's x.
void moe_combine_cuda(const MoeCudaArgs& args, const MoeCombineCuda& of, CudaStream stream);
// Whether it makes the shared experts' output on the current device.
bool combine_makes_shared(const MoeCudaArgs& args);

}  // namespace assay::kernels
