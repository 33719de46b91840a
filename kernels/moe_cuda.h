// The routed experts of one layer on a GPU, in float32, straight from their codes.
//
// VQ experts in units (vq_units.h) take two launches, whatever mixture of codebooks a layer has:
// gate and up with silu(gate) · up, then down with the weighted sum. Products are made on tensor
// cores of codewords, which binary16 holds exactly, and x in two halves. A warp has 512 columns, a
// *part*:
//   |x - halves| <= 2^-22 |x| + 2^-39 of the part's largest |x|   (of any size; a NaN or an
//   infinity
//                                                                  makes a result that is a NaN)
// A scale's columns are one chain of four mma instructions of 16 products to an accumulator, whose
// sum errs by (64 + 16) · 2^-22 of the sizes of its terms (gemm_cuda_test says why); what is added
// up then, halves, scales and parts, passes through at most 28 roundings of 2^-24. So
//   |y - W x| <= 90 · 2^-22 · Σ |w x| + 2^-39 · Σ over parts of (largest |x|) · Σ |w|.
// Integers whose sums float32 holds are exact. A row's bits are a function of its matrix and x.
//
// Where all codebooks have 256 entries, gate and up one, down one, and shapes are large, a layer
// goes by *partial sums* (vq_sums.h) in three launches, the last of which adds up the experts. Of
// them all this is true too: a part is a slice of 128 codewords' columns, a table's entry one mma
// of 16 products at most, (16 + 16) · 2^-22, and what is added up then, of a lane, lanes, a scale
// and slices, passes through at most 10 + 16 roundings.
#pragma once

#include <span>
#include <string>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"
#include "kernels/vq_slices.h"
#include "kernels/vq_units.h"

namespace assay::kernels {

// Slices take up to two bits a code more than units do.
enum class MoeLayout { kFastest, kSmallest };
// plan_units or, where they pay, plan_sums or plan_slices, for the current device: before a layer's
// matrices are laid out, by its plan. kSmallest: slices only where
// units do not take the layer.
UnitPlan plan_moe_units(std::span<const VqMatrix> experts, int top_k,
                        MoeLayout layout = MoeLayout::kFastest);

// How a layer's experts are multiplied. Fixed when its weights are known, so that a token's bits do
// not depend on which experts the others of its batch chose.
struct MoePlan {
  // A warp to a row, token and expert (row_dot.cuh), which takes every kind of matrix.
  MoePlan() = default;
  // `experts` (n_experts, 3): gate, up, down, laid out by `units`, on the host.
  MoePlan(const UnitPlan& plan, std::span<const DeviceMatrix> experts);

  UnitPlan units;
  const void* codebook[2][UnitLaunch::kTables] = {};  // binary16, the device's: gate and up, down
  SliceKinds kinds;                                   // where units are by slices
  int n_experts = 0;                                  // likewise

  bool is_grouped() const { return units.is_in_units(); }
  // Floats of scratch for a token, 0 where none is needed.
  std::size_t sums_per_token(int hidden, int width) const;
  std::string text() const;  // "vq units", "vq units, tables ×4", "vq partial sums", or "rows"
};

// The shared experts' last product, where their output is still to be made: matrix · x, with the
// bits that project_cuda gives it.
struct SharedDownCuda {
  const DeviceMatrix* matrix = nullptr;  // (hidden, n)
  const float* x = nullptr;              // (n_tokens, n), rows 16-byte aligned
  float* y = nullptr;                    // (n_tokens, hidden): scratch
};

struct MoeCudaArgs {
  const MoePlan* plan;
  const DeviceMatrix* experts;  // (n_experts, 3): gate, up, down, in device memory
  const int* expert;            // (n_tokens, top_k), ascending
  const float* weight;          // (n_tokens, top_k)
  int n_tokens, top_k, hidden, width;
  const float* x;  // (n_tokens, hidden), 8-byte aligned
  float* h;        // (n_tokens * top_k, width): scratch, 8-byte aligned
  const float*
      shared;       // (n_tokens, hidden): the shared experts' output, unless shared_down makes it
  float* residual;  // (n_tokens, hidden): += Σ_k weight_k · expert_k(x) (a chain) + shared
  // Scratch of the plan's sums_per_token for each of so many tokens, which then take turns.
  float* sums = nullptr;
  int sums_tokens = 0;
  SharedDownCuda shared_down;
};
void moe_cuda(const MoeCudaArgs& args, CudaStream stream);

}  // namespace assay::kernels
