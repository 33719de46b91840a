// Products by the row on a GPU, of one to a few tokens: project_cuda's and swiglu_cuda's that do
// not go to tensor cores. A matrix is read from memory once. All pointers are device pointers.
#pragma once

#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

inline constexpr int kProjectWarps = 8;  // of a block

// Few long rows do not fill a GPU with a warp each. By the matrix's shape alone, so that a token's
// bits do not depend on its batch: a divisor of kProjectWarps, as many lanes times 32 as share the
// row.
constexpr int parts_of_row(const DeviceMatrix& m) {
  constexpr int kWarpsOfGpu = 16384, kColumnsOfWarp = 768;
  int parts = 1;
  while (parts < kProjectWarps && m.n_rows * parts < kWarpsOfGpu &&
         m.n_cols >= 2 * kColumnsOfWarp * parts)
    parts *= 2;
  return parts;
}

// What products of one x have in common.
struct ProductInput {
  const float* x;
  int x_stride, n_tokens;
  bool accumulate;
};

// Whether the matrices may share a launch.
bool are_of_one_row_form(const DeviceMatrix& a, const DeviceMatrix& b);
// Of one row form, 1 to kMostProducts, as many columns.
void project_by_row(std::span<const DeviceProduct> products, const ProductInput& in,
                    CudaStream stream);
// h (n_tokens, gate.n_rows) = silu(gate x) * (up x); of one shape.
void swiglu_by_row(const DeviceMatrix& gate, const DeviceMatrix& up, const ProductInput& in,
                   float* h, CudaStream stream);

}  // namespace assay::kernels
