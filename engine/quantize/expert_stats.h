// What the calibration tokens say of a sparse layer's experts: who sees how many, how large inputs
// are, and how much an error of each projection moves the layer's output.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "engine/backend/cpu_matrix.h"
#include "engine/quantize/layer_pass.h"
#include "kernels/aligned_array.h"

namespace assay::engine {

// Products of many rows with one matrix, dense or codes.
class RowProduct {
 public:
  // `stop` is asked for every 24 rows; the products are then of no use, which the caller's next
  // check says.
  RowProduct(const Matrix& m, ThreadPool& pool, Stop* stop);
  // x (n, n_cols) → (n, n_rows).
  Rows operator()(const Rows& x) const;

 private:
  kernels::WeightArena arena_;
  CpuMatrix packed_;
  ThreadPool& pool_;
  Stop* stop_;
};

// silu(gate x) · up x, for rows x. `stop` as for RowProduct.
Rows mlp_hidden(const MlpWeights& mlp, const Rows& x, ThreadPool& pool, Stop* stop);

// The first `width` of every `stride` values, RMS-normed and weighted. `stop` is asked for every
// row, and leaves out the rest of them.
Rows rms_normed(const std::vector<float>& x, int stride, int width, const Matrix& weight, float eps,
                Stop* stop);

// The rows of a layer's inputs that one expert is given.
struct ExpertRows {
  std::vector<int> row;
  std::vector<float> weight;  // of an error, as MoeInputs has it
  int n() const { return static_cast<int>(row.size()); }
};
std::vector<ExpertRows> rows_by_expert(const MoeInputs& inputs, int n_experts, int top_k);
// Those rows of x (…, width); with `weighted` times what an error in them
// weighs.
Rows gather(const Rows& x, int width, const ExpertRows& rows, bool weighted);

// The output error of a projection with weights off by Δ is about
//   Σ_r row_weight[r] Σ_c col_energy[c] Δ[r, c]²,
// summed over the expert's tokens, each relative to its residual, and divided by the layer's number
// of tokens: exact for down but for the columns' correlation; for gate and up through the
// derivative of the activation.
struct ProjectionStats {
  std::vector<float> col_energy;  // (n_cols): Σ w² x_c²
  std::vector<float> row_weight;  // (n_rows)
};
struct ExpertStats {
  int n_tokens = 0;
  ProjectionStats gate, up, down;
};
// `stop` is asked between experts.
Result<std::vector<ExpertStats>> expert_stats(const ModelConfig& config,
                                              const LayerWeights& weights, const MoeInputs& inputs,
                                              ThreadPool& pool, Stop* stop);

}  // namespace assay::engine
