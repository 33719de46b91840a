// RMSNorm (Zhang and Sennrich 2019) and LayerNorm, float32 statistics.
#pragma once

#include "kernels/cpu_target.h"

namespace assay::kernels {

// y = weight * (x * rsqrt(mean(x²) + eps)), over n values. y may be x.
void rms_norm_reference(const float* x, const float* weight, float eps, int n, float* y);

// y = weight * (x - mean) * rsqrt(var + eps) + bias, over n values. y may be x.
void layer_norm_reference(const float* x, const float* weight, const float* bias, float eps, int n,
                          float* y);

// float32 sums in one order for every target: element j goes to lane j mod 16, a chain per lane,
// then a fixed tree over the 16 lanes.
void rms_norm_cpu(CpuTarget target, const float* x, const float* weight, float eps, int n,
                  float* y);
void layer_norm_cpu(CpuTarget target, const float* x, const float* weight, const float* bias,
                    float eps, int n, float* y);

}  // namespace assay::kernels
