// The inner loops of quantisation, SIMD with run-time dispatch. A lane is a row of the matrix
// (or a point), never a part of a sum: every sum is one chain of fused multiply-adds in ascending
// order, so the bits are the same for every target and every way to share rows out.
//
// Values of n lanes lie as (element, lane): element i of lane r at i * n_lanes + r. n_lanes is a
// multiple of 16; arrays need no alignment.
#pragma once

#include "kernels/cpu_target.h"

namespace assay::engine {

inline constexpr int kLaneStep = 16;
inline constexpr int kMostNearest = 64;

// sums[c][r] += Σ_k errors[k][r] panel[k * panel_stride + c].
struct PushArgs {
  const float* errors;  // (n_errors, n_lanes)
  const float* panel;   // (n_errors, panel_stride)
  float* sums;          // (n_cols, n_lanes)
  int n_errors, n_cols, n_lanes, panel_stride;
};
void push_errors(kernels::CpuTarget target, const PushArgs& args);

// The codeword k of least score[k] = half_norm_k − Σ_i u_i c_ki, for each lane, the lowest index
// among equals. With half_norm = ½ Σ c_ki² that is the order of |u − c_k|².
struct NearestArgs {
  const float* u;        // (dim, n_lanes)
  const float* table;    // (n_codes, dim + 1): c_k0 …, half_norm_k
  float *score, *index;  // (n_lanes); indices are whole numbers
  int dim;               // 1, 2, 4, 8 or 16
  int n_codes, n_lanes;
};
void nearest_codewords(kernels::CpuTarget target, const NearestArgs& args);

// Likewise the n_best of least score, best first, the lower index among equals.
struct FewNearestArgs {
  const float* u;                // (dim, n_lanes)
  const float* table;            // (n_codes, dim + 1)
  float *score, *index;          // (n_best, n_lanes)
  int dim;                       // 1, 2, 4, 8 or 16
  int n_codes, n_best, n_lanes;  // n_best: 1 to 64, n_codes at most
};
void few_nearest_codewords(kernels::CpuTarget target, const FewNearestArgs& args);

// The codeword of least score[k] = Σ_i (w_i c_ki + v_i) c_ki, the lowest index among equals. With
// v_i = −2 w_i x_i that is the order of Σ w_i (x_i − c_ki)².
struct NearestWeightedArgs {
  const float *w, *v;     // (dim, n_lanes)
  const float* codebook;  // (n_codes, dim)
  float *score, *index;   // (n_lanes)
  int dim;                // 1, 2, 4, 8 or 16
  int n_codes, n_lanes;
};
void nearest_weighted(kernels::CpuTarget target, const NearestWeightedArgs& args);

bool is_searchable_dim(int dim);  // 1, 2, 4, 8 or 16

}  // namespace assay::engine
