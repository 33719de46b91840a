// Dense projection y = x Wᵀ (a GEMV for one token, a GEMM for a prompt chunk).
#pragma once

#include "kernels/cpu_target.h"
#include "kernels/dtype.h"
#include "kernels/packed_matrix.h"

namespace assay::kernels {

// x (n_tokens, x_stride >= n_cols), y (n_tokens, y_stride >= n_rows); accumulate adds to y.
void project_reference(const WeightMatrix& w, const float* x, int n_tokens, int x_stride, float* y,
                       int y_stride, bool accumulate);

// The same for the blocks [first_block, last_block) of 16 output rows. Tokens are given by pointer,
// so the rows of an expert need not be gathered. Every element is one chain of fused multiply-adds
// over ascending columns from zero (accumulate: then one addition), so its bits do not depend on
// the target, on n_tokens, or on which blocks a call covers.
struct ProjectCpuArgs {
  const PackedMatrix* w;
  const float* const* x;  // (n_tokens) pointers to n_cols values
  float* const* y;        // (n_tokens) pointers to n_rows values; must not overlap x
  int n_tokens;
  int first_block, last_block;
  bool accumulate;
};
void project_cpu(CpuTarget target, const ProjectCpuArgs& args);

}  // namespace assay::kernels
