// Products with vector-quantised matrices on the CPU, straight from their codes.
//
// The bits of a result do not depend on the target, the number of tokens, or how work is shared
// out. They depend on the method, which is a function of the matrix's shape alone:
//   partial sums: T_j[i] = codeword_i · x_j once per sub-vector, then one look-up per row;
//                 y_r = Σ_g scale_rg (Σ_{j in g} T_j[index_rj])
//   codewords:    weights of 16 rows at a time from the codebook, then
//                 y_r = Σ_g scale_rg (Σ_{c in g} codeword_rc x_c)
// every sum one chain in ascending order.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/cpu_target.h"
#include "kernels/quantised.h"
#include "kernels/weight_arena.h"

namespace assay::kernels {

enum class VqMethod { kPartialSums, kCodewords };

// The codes of one matrix in the order in which the kernels read them, as many bits as on disk.
// Its memory is the arena's; the codebook stays the caller's.
class PackedVq {
 public:
  PackedVq() = default;
  static PackedVq pack(WeightArena& arena, const VqMatrix& w);

  // Rows come in blocks: work is shared out by whole blocks.
  static constexpr int kBlockRows = 64;
  int n_rows() const { return n_rows_; }
  int n_cols() const { return n_cols_; }
  int n_blocks() const { return (n_rows_ + kBlockRows - 1) / kBlockRows; }
  bool empty() const { return n_rows_ == 0; }
  std::size_t bytes() const { return bytes_; }  // of codes and scales
  VqMethod method() const { return method_; }

 private:
  // (the implementer's fields)
  int n_rows_ = 0, n_cols_ = 0;
  std::size_t bytes_ = 0;
  VqMethod method_ = VqMethod::kCodewords;
};

// Products of several matrices with the same inputs (an expert's gate and up, or those of every
// selected expert): partial-sum tables are built once for all that share a codebook.
struct VqProduct {
  const PackedVq* w;
  float* const* y;  // (n_tokens) pointers to n_rows values
  int first_block, last_block;
};
struct VqProjectArgs {
  std::span<const VqProduct> products;
  const float* const* x;  // (n_tokens) pointers to n_cols values, the same for all products
  int n_tokens;
  bool accumulate;
  float* scratch;  // vq_scratch() floats, aligned to 64 bytes
};
std::size_t vq_scratch();
void vq_project_cpu(CpuTarget target, const VqProjectArgs& args);

}  // namespace assay::kernels
