// Projections on a GPU, in float32: any kind of weight matrix. GPTQ in units goes to tensor cores
// (gptq_cuda.h), all others go by the row (few_rows_cuda.h). All pointers are device pointers; x
// and y rows are 16-byte aligned. Accumulates in a fixed order: the same request gives the same
// bits whatever n_tokens is.
#pragma once

#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

// y (n_tokens, y_stride) = x (n_tokens, x_stride) mᵀ; accumulate adds to y. n_tokens < 65536. m is
// a model's: it is read before the launch ahead has ended, here and below.
void project_cuda(const DeviceMatrix& m, const float* x, int x_stride, int n_tokens, float* y,
                  int y_stride, bool accumulate, CudaStream stream);
// Up to kMostProducts of one x, all with the bits that they have alone, in as few launches as their
// kinds allow: matrices in units of one shape (are_alike) share one, and those that go by the row
// do if they are of one form (are_of_one_row_form).
void project_cuda(std::span<const DeviceProduct> products, const float* x, int x_stride,
                  int n_tokens, CudaStream stream);

// Whether products of m go by the slowest way (row_dot.cuh): its kind, or its columns or groups, do
// not come in the pieces that the others take.
bool project_is_by_piece(const DeviceMatrix& m);

// For each token and head: y = w_h x_h. w (n_heads, n_rows, n_cols) float, a model's: it is read
// before the launch ahead has ended. A sum is a chain of n_cols / 32 in each lane and a tree over
// lanes, so that a product passes through at most n_cols / 32 + 7 roundings.
struct HeadsCudaArgs {
  const float* w;
  int n_heads, n_rows, n_cols;
  const float* x;  // (n_tokens, x_token_stride), head h at h * x_head_stride
  int x_token_stride, x_head_stride;
  float* y;
  int y_token_stride, y_head_stride;
  int n_tokens;
};
void project_heads_cuda(const HeadsCudaArgs& args, CudaStream stream);

// h (n_tokens, gate.n_rows) = silu(gate x) * (up x).
void swiglu_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, const float* x, int x_stride,
                 int n_tokens, float* h, CudaStream stream);
// As project_is_by_piece: also if the two are of different forms.
bool swiglu_is_by_piece(const DeviceMatrix& gate, const DeviceMatrix& up);

}  // namespace assay::kernels
