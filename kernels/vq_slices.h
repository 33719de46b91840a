// Layers of routed experts whose matrices have different codebooks, as moe_slices.cuh multiplies
// them: slice of columns by slice, those of 256 codewords by partial sums (vq_sums.h), those of
// 4096 in units (vq_units.h) that lie slice by slice too. What a block does depends on the matrices
// that a token chose, so each kind of codebook has all of a block's shared memory: three copies of
// 4096 codewords of eight values, or four of four.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/vq_sums.h"
#include "kernels/vq_units.h"

namespace assay::kernels {

constexpr std::size_t kSlicesSharedBytes = std::size_t{227} << 10;  // that a block needs
constexpr int kSliceUnitScales = 4;                                 // of a row of a unit
constexpr int kSliceScaleColumns = 128;  // a scale is of a multiple of them, or of a whole row

constexpr int slice_copies(UnitLaunch::TableOf table) {
  return table == UnitLaunch::k8x4096 ? 3 : table == UnitLaunch::k4x4096 ? 4 : 1;
}
// What a slice's results depend on is its matrix alone: how wide it is, too.
constexpr int slice_columns(UnitLaunch::TableOf table) {
  return table == UnitLaunch::k8x256 ? sums_columns(8) : kVqUnitColumns;
}
constexpr int n_slices(UnitLaunch::TableOf table, int n_cols) {
  return (n_cols + slice_columns(table) - 1) / slice_columns(table);
}

// Of up to so many experts: kinds of codebooks (UnitLaunch::TableOf) of gate, up and down, from the
// low bits on two each. A kernel's argument, so that a block need not wait for memory to know.
constexpr int kMostSliceExperts = 512;
struct SliceKinds {
  unsigned char of_expert[kMostSliceExperts] = {};
};

// Where every matrix has one codebook of 4 or 8 values with indices of 8 or 12 bits, scales of a
// multiple of kSliceScaleColumns (or of a row), gate and up, and down, one codebook of each kind,
// at most kMostSliceExperts, and a block shared_bytes enough (sm_90 has). `experts` (n_experts, 3).
UnitPlan plan_slices(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes);
// Whether that is faster than units: where a slice has many rows, columns fill their slices, and
// not all codebooks are of 4096 codewords of four.
bool slices_pay(std::span<const VqMatrix> experts);

}  // namespace assay::kernels
