// How a step's rows meet weight matrices on a GPU: chunks of a prompt on tensor cores, where the
// model's kernel says so, and single rows by the row, straight from the codes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda_model.h"
#include "kernels/gemm_cuda.h"

namespace assay::engine {

// Scratch, and the ranges of the step in hand. All pointers are the device's.
class CudaProducts {
 public:
  // For steps of at most max_rows.
  CudaProducts(const CudaModel& model, int max_rows, kernels::CudaStream stream,
               kernels::DeviceBudget& budget);

  void begin_step(std::span<const Segment> segments);

  // out (n_rows, m.n_rows) = in (n_rows, m.n_cols) mᵀ; accumulate adds to out.
  void multiply(const DeviceMatrix& m, const float* in, float* out, bool accumulate);
  // Several of one `in`, in as few launches as their kinds allow.
  struct Product {
    const DeviceMatrix* matrix;
    float* out;
    bool chooses = false;  // in float32, on whatever cores its row's others are multiplied
  };
  void multiply(std::span<const Product> products, const float* in);
  // out (n_rows, hidden) = the MLP of in (n_rows, hidden), likewise.
  void mlp(const CudaMlp& w, const float* in, float* out, bool accumulate);
  // What routing makes of a step's rows.
  struct Choice {
    float* logits;  // (n_rows, n_experts)
    int* expert;    // (n_rows, top_k)
    float *weight, *margin;
  };
  // The router's choice for in, in float32, and what of the layer's shared experts may share its
  // launch.
  void route(const CudaLayer& l, const float* in, const Choice& to);
  // residual += the routed and shared experts of in; behind route of the same.
  void moe(const CudaLayer& l, const float* in, const Choice& of, float* residual);

 private:
  // Consecutive rows that are multiplied alike.
  struct RowRange {
    int first, n;
    bool on_tensor_cores;
  };
  void mlp_on_tensor_cores(const CudaMlp& w, const RowRange& r, const float* in, float* out,
                           bool accumulate);
  // Of a row that is multiplied by the row: the MLP's, or the shared experts'.
  float* hidden_of(const CudaMlp& w, int row) const {
    return mlp_hidden_.data() + static_cast<std::ptrdiff_t>(row) * w.gate.n_rows;
  }
  kernels::DecodeRoom room() const { return {decoded_.data(), decoded_.size()}; }
  // The same in bfloat16. Valid until the next one.
  kernels::Bf16* rounded(const float* x, int width, int n_rows);

  const CudaModel& m_;
  const ModelConfig& c_;
  const kernels::CudaStream stream_;
  std::vector<RowRange> ranges_;  // of this step, in order
  kernels::DeviceArray<float> mlp_hidden_, shared_, expert_hidden_, expert_sums_;
  int sums_tokens_;
  const CudaLayer* routed_ = nullptr;  // whose route is the last of this step
  // Of ranges on tensor cores.
  kernels::DeviceArray<kernels::Bf16> rounded_, rounded_hidden_, decoded_;
  kernels::DeviceArray<float> expert_out_;
  kernels::DeviceArray<int> slots_, first_slot_;
};

}  // namespace assay::engine
