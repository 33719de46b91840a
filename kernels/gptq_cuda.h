// Products of GPTQ matrices in units (gptq_units.h) and few rows of x on a GPU's tensor cores, all
// of x counted: it goes in as two binary16 halves, integers less their zero points are exact in
// binary16, scales multiply sums of a group in float32.
//
// Error. A group's values of x are multiplied by the power of two that brings the largest into
// [2^14, 2^15), which the sum undoes; both are exact. Of a value v of the group, high + low differ
// from it by at most 2^-22 |v|, and by 2^-39 of the group's largest where low is below binary16's
// normal numbers. A tensor core adds 16 products and the sum so far in no known order and cuts off
// what is below 2^-23 of the largest: 17 such errors an instruction, group / 16 instructions. A
// group's sum then passes through at most 3 roundings of its own (high + low, the scale, the fold)
// and as many as there are groups of its warp and warps. So, with G groups and W <= 16 warps,
//   |y - w x| <= (2^-22 + 17 (group / 16) 2^-23 + (3 + ceil(G / W) + W) 2^-24) Σ |w x|
//                + 2^-39 Σ over groups (max |x| Σ |w|).
// Integers whose sums float32 holds lose nothing. An infinity or a NaN of x makes its row's results
// NaN, no other's.
//
// Bits: a result is the same chain of instructions whatever n_tokens is, wherever its row lies and
// whatever is multiplied beside it: they depend on the matrix's shape, and on the device only in W.
#pragma once

#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

struct GptqCudaArgs {
  std::span<const DeviceProduct> products;  // 1 to kMostProducts, alike (are_alike)
  const float* x = nullptr;                 // (n_tokens, x_stride), rows 16-byte aligned
  int x_stride = 0, n_tokens = 0;
  bool accumulate = false;  // adds to y
  // Two products: y of the first = silu(first) · second, and the second's y is not used.
  bool swiglu = false;
  std::size_t shared_bytes = 0;  // that a block may have
  int spare_blocks = 0;          // multiprocessors that are left to others
};

// Whether `a` and `b` may be multiplied together: both in units of one kind, as many columns.
bool are_alike(const DeviceMatrix& a, const DeviceMatrix& b);
// Whether the matrix lies in units and a block of shared_bytes has room for it.
bool is_for_gptq_cuda(const DeviceMatrix& m, std::size_t shared_bytes, bool swiglu);
void gptq_cuda(const GptqCudaArgs& args, CudaStream stream);

}  // namespace assay::kernels
