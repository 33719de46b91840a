// Products of many rows on a GPU's tensor cores: bfloat16 operands, float32 sums. All pointers are
// device pointers. Any kind of weight matrix (kernels/bf16_weights.cuh says how a weight is
// rounded), decoded tile by tile; a GPTQ or FP8 matrix once for all tiles, if there is room.
// VQ codes are never expanded in memory.
//
// A row's bits depend on that row and the matrix alone: each output is one chain of mma
// instructions over columns in ascending order, 16 at a time, whatever rows share its tile, however
// many there are and whichever tile is chosen for them.
#pragma once

#include <cstdint>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

// bfloat16 rows as tensor cores read them are this far apart, in values; what is between a row's
// end and the next is never used.
inline int bf16_stride(int n_cols) { return (n_cols + 7) / 8 * 8; }

// A bfloat16 activation: (n_rows, bf16_stride(n_cols)), 16-byte aligned.
using Bf16 = std::uint16_t;

// Where weights are decoded to, for the product in hand: a slab of rows at a time, so that any size
// will do. Without room they are decoded again for every tile of x's rows; the bits are the same.
struct DecodeRoom {
  Bf16* values = nullptr;  // 16-byte aligned
  std::size_t n_values = 0;
};
// What it takes to decode such a matrix at once, or 128 MiB if that is less; 0: it never is.
std::size_t decode_room(const DeviceMatrix& m);
std::size_t decode_room(const DeviceMatrix& gate, const DeviceMatrix& up);  // of both together

// out = x (n_rows, x_stride), rounded to nearest even.
void to_bf16_cuda(const float* x, int x_stride, int n_rows, int n_cols, Bf16* out,
                  CudaStream stream);

// y (n_rows, y_stride) = x (n_rows, m.n_cols) mᵀ; accumulate adds to y.
void gemm_cuda(const DeviceMatrix& m, const Bf16* x, int n_rows, float* y, int y_stride,
               bool accumulate, const DecodeRoom& room, CudaStream stream);

// h (n_rows, gate.n_rows) = silu(gate x) * (up x), computed in float32, then rounded.
void gemm_swiglu_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, const Bf16* x, int n_rows,
                      Bf16* h, const DecodeRoom& room, CudaStream stream);

// The routed experts of one layer: rows sorted by expert, gate with up, down, and a token's
// experts added up in ascending order. No host decision depends on what the router chose.
struct MoeGemmArgs {
  const DeviceMatrix* experts;  // (n_experts, 3): gate, up, down, in device memory
  int n_experts;
  bool all_copied;      // every one of them has is_copied
  const int* expert;    // (n_tokens, top_k), ascending
  const float* weight;  // (n_tokens, top_k)
  int n_tokens, top_k, hidden, width;
  const Bf16* x;  // (n_tokens, hidden)
  // Scratch; a slot is a token's k-th expert, n_slots = n_tokens * top_k.
  int* order;           // (n_slots): slots by expert
  int* first;           // (n_experts + 1): where an expert's begin in `order`
  Bf16* h;              // (n_slots, width), in that order
  float* y;             // (n_slots, hidden), by slot
  const float* shared;  // (n_tokens, hidden): the shared experts' output
  float* residual;      // (n_tokens, hidden): += Σ_k weight_k · expert_k(x) (a chain) + shared
};
void moe_gemm_cuda(const MoeGemmArgs& args, CudaStream stream);

// Whether a matrix needs no decoding: bf16, its columns in multiples of eight.
bool is_copied(const DeviceMatrix& m);
// Whether a matrix is decoded one weight after the other, which is slow: columns or scale groups
// that are no multiples of eight, codewords of other lengths than 4 and 8, several codebooks.
bool is_decoded_by_value(const DeviceMatrix& m);

}  // namespace assay::kernels
