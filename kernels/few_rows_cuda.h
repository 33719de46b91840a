// Products by the row on a GPU: project_cuda's and swiglu_cuda's that do not go to tensor cores. A
// matrix is read from memory once for up to eight tokens, and for more from the second-level cache
// at best. Matrices are a model's: they are read before the launch ahead has ended. All pointers
// are device pointers.
#pragma once

#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

// What products of one x have in common.
struct ProductInput {
  const float* x;
  int x_stride, n_tokens;
  bool accumulate;
};

// Whether the matrices may share a launch.
bool are_of_one_row_form(const DeviceMatrix& a, const DeviceMatrix& b);
// Whether it comes in no such form.
bool is_of_no_row_form(const DeviceMatrix& m);
// Of one row form, 1 to kMostProducts, as many columns.
void project_by_row(std::span<const DeviceProduct> products, const ProductInput& in,
                    CudaStream stream);
// h (n_tokens, gate.n_rows) = silu(gate x) * (up x); of one shape.
void swiglu_by_row(const DeviceMatrix& gate, const DeviceMatrix& up, const ProductInput& in,
                   float* h, CudaStream stream);

}  // namespace assay::kernels
