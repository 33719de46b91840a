// RMSNorm (Zhang and Sennrich 2019) and LayerNorm, float32 statistics.
#pragma once

namespace assay::kernels {

// y = weight * (x * rsqrt(mean(x²) + eps)), over n values. y may be x.
void rms_norm_reference(const float* x, const float* weight, float eps, int n, float* y);

// y = weight * (x - mean) * rsqrt(var + eps) + bias, over n values. y may be x.
void layer_norm_reference(const float* x, const float* weight, const float* bias, float eps, int n,
                          float* y);

}  // namespace assay::kernels
