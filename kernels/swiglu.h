// SwiGLU: silu(gate) * up (Shazeer 2020).
#pragma once

#include "kernels/cpu_target.h"

namespace assay::kernels {

// y = gate / (1 + exp(-gate)) * up, over n values. y may be gate.
void swiglu_reference(const float* gate, const float* up, int n, float* y);
void swiglu_cpu(CpuTarget target, const float* gate, const float* up, int n, float* y);
// The same from a product with PackedMatrix::pack_in_turn(gate, up): 16 values of gate, 16 of up,
// the next 16 of gate, …
void swiglu_in_turn_cpu(CpuTarget target, const float* gate_up, int n, float* y);

// y = exp(x) in float32, at most 2 units in the last place off; the function that every cpu kernel
// uses.
void exp_cpu(CpuTarget target, const float* x, int n, float* y);

}  // namespace assay::kernels
