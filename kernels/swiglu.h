// SwiGLU: silu(gate) * up (Shazeer 2020).
#pragma once

namespace assay::kernels {

// y = gate / (1 + exp(-gate)) * up, over n values. y may be gate.
void swiglu_reference(const float* gate, const float* up, int n, float* y);

}  // namespace assay::kernels
