// The routed experts of one layer on a GPU, in float32, straight from their codes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

// Matrices of one codebook, and what multiplies them (docs/design/cuda-kernels.md):
// - partial sums: a table of codeword · x for 128 sub-vectors of x and every codeword, in shared
//   memory, a lane to a column of it; a weight row adds up what its codes point to. 8-bit indices.
// - codewords: the codebook in binary16 in shared memory, in copies; lanes keep x in registers.
//   8- and 12-bit indices.
struct MoeTier {
  enum class Design { kPartialSums, kCodewords };
  Design design = Design::kPartialSums;
  DeviceMatrix like;  // any matrix of the tier: its codebook, dim, indices and shape
  int n_slices = 0;   // of a row: what one block's table or registers hold
  int group = 0;      // divides the columns that share a scale, in every matrix of the tier
};

// How a layer's experts are multiplied. Fixed when its weights are known, so that a token's bits do
// not depend on which experts the others of its batch chose.
struct MoePlan {
  // Gate and up, then down, by tier; both empty: a warp to a row, token and expert (row_dot.cuh),
  // which takes every kind of matrix.
  std::vector<MoeTier> gate_up, down;
  int gate_up_slices = 0, down_slices = 0;  // of a matrix, at most
  bool codewords_only = false;

  bool is_grouped() const { return !gate_up.empty(); }
  std::string text() const;  // "vq partial sums + codewords", or "rows"
  // Floats that MoeCudaArgs::parts needs for one token.
  std::size_t parts_per_token(int top_k, int hidden, int width) const;
};

// `experts` (n_experts, 3): gate, up, down, on the host. Grouped where every matrix has one
// codebook of 4 or 8 values, indices of 8 or 12 bits, scale groups that a lane's columns do not
// straddle, the layer at most kMaxTiers codebooks for either part, and a block of the current
// device may share the memory that a table needs.
MoePlan plan_moe(std::span<const DeviceMatrix> experts);
// With this design for 8-bit indices, whatever the size.
MoePlan plan_moe(std::span<const DeviceMatrix> experts, MoeTier::Design preferred);
inline constexpr int kMaxTiers = 8;

struct MoeCudaArgs {
  const MoePlan* plan;
  const DeviceMatrix* experts;  // (n_experts, 3): gate, up, down, in device memory
  const int* expert;            // (n_tokens, top_k), ascending
  const float* weight;          // (n_tokens, top_k)
  int n_tokens, top_k, hidden, width;
  const float* x;  // (n_tokens, hidden)
  // Scratch. Not grouped: h (n_tokens * top_k, width). Grouped: parts for `parts_tokens` tokens,
  // as many as are computed at a time.
  float* h;
  float* parts;
  int parts_tokens;
  const float* shared;  // (n_tokens, hidden): the shared experts' output
  float* residual;      // (n_tokens, hidden): += Σ_k weight_k · expert_k(x) (a chain) + shared
};
void moe_cuda(const MoeCudaArgs& args, CudaStream stream);

}  // namespace assay::kernels
