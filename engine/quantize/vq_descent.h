// Betters the codes and scales of one matrix that a column sweep has chosen: each sub-vector again,
// given the errors on both sides of it, and each scale (coordinate descent on the exact output
// error, as in AQLM's and QuIP#'s last step; Egiazarian 2024, arXiv:2401.06118, section 3.2).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/hessian.h"

namespace assay::engine {

struct VqCodes {
  std::vector<std::uint16_t> indices;  // (n_rows, n_cols / dim)
  std::vector<float> scales;           // (n_rows, n_groups), binary16 values
};

// n_passes over all columns of w (n_rows, n_cols). Returns Σ (w − q) (H + damping I) (w − q)ᵀ of
// each row, never above what it was but for rounding. The same bits for any pool. `stop` is asked
// for every 64 rows of 128 columns.
Result<std::vector<double>> descend(const float* w, int n_rows, int n_cols,
                                    const Codebook& codebook, const Hessian& h, double damping,
                                    int group, int n_passes, ThreadPool& pool, VqCodes& codes,
                                    Stop* stop);

}  // namespace assay::engine
