// A weight matrix in the form that the cpu kernels read it: dense, or as its codes.
#pragma once

#include <variant>

#include "engine/checkpoint/weights.h"
#include "kernels/cpu_target.h"
#include "kernels/packed_matrix.h"
#include "kernels/packed_scaled.h"
#include "kernels/vq.h"

namespace assay::engine {

class CpuMatrix {
 public:
  CpuMatrix() = default;
  static CpuMatrix pack(kernels::WeightArena& arena, const Matrix& m);

  int n_rows() const { return n_rows_; }
  int n_cols() const { return n_cols_; }
  std::size_t bytes() const;
  bool empty() const { return n_rows_ == 0; }

  // Work is shared out by blocks of rows; parts best begin at a multiple of group_blocks().
  int block_rows() const {
    return vq() != nullptr       ? kernels::PackedVq::kBlockRows
           : scaled() != nullptr ? kernels::PackedScaled::kBlockRows
                                 : 16;
  }
  int n_blocks() const { return (n_rows_ + block_rows() - 1) / block_rows(); }
  int group_blocks() const { return dense() != nullptr ? kernels::PackedMatrix::kGroupBlocks : 1; }

  const kernels::PackedMatrix* dense() const { return std::get_if<kernels::PackedMatrix>(&form_); }
  const kernels::PackedScaled* scaled() const { return std::get_if<kernels::PackedScaled>(&form_); }
  const kernels::PackedVq* vq() const { return std::get_if<kernels::PackedVq>(&form_); }

  // As kernels::ProjectCpuArgs; scratch as kernels::VqProjectArgs.
  struct Product {
    const float* const* x;
    float* const* y;
    int n_tokens;
    int first_block, last_block;
    bool accumulate;
    float* scratch;
  };
  void multiply(kernels::CpuTarget target, const Product& p) const;

 private:
  std::variant<kernels::PackedMatrix, kernels::PackedVq, kernels::PackedScaled> form_;
  int n_rows_ = 0, n_cols_ = 0;
};

}  // namespace assay::engine
