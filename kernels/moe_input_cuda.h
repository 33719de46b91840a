// What a sparse MLP makes of its x before any routed expert: the router's choice, and the shared
// experts' silu(gate) · up, which does not depend on it. Where gate and up are GPTQ in units, some
// blocks of their launch choose; the bits are those of project_cuda, route_cuda and swiglu_cuda
// either way.
#pragma once

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"
#include "kernels/layer_cuda.h"

namespace assay::kernels {

struct MoeInputCuda {
  const DeviceMatrix* router;                         // (n_experts, n_cols)
  const DeviceMatrix *gate = nullptr, *up = nullptr;  // (width, n_cols), or neither
  const float* x;                                     // (n_tokens, x_stride), rows 16-byte aligned
  int x_stride, n_tokens;                             // n_tokens < 65536
  float* logits;                                      // (n_tokens, n_experts)
  RouteCuda route;                                    // its logits and rows are those above
  float* h = nullptr;                                 // (n_tokens, width)
};
void moe_input_cuda(const MoeInputCuda& args, CudaStream stream);
// Whether the choice shares gate and up's launch on the current device.
bool choice_shares_launch(const MoeInputCuda& args);

}  // namespace assay::kernels
