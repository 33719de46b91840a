// Dense projection y = x Wᵀ (a GEMV for one token, a GEMM for a prompt chunk).
#pragma once

#include "kernels/dtype.h"

namespace assay::kernels {

// x (n_tokens, x_stride >= n_cols), y (n_tokens, y_stride >= n_rows); accumulate adds to y.
void project_reference(const WeightMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate);

}  // namespace assay::kernels
