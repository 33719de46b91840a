// A GLM's weights as the cpu kernels read them.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu_matrix.h"
#include "engine/backend/cpu_packer.h"
#include "kernels/cpu_target.h"
#include "kernels/packed_matrix.h"
#include "kernels/rope.h"

namespace assay::engine {

struct CpuMlp {
  kernels::PackedMatrix gate_up;  // both dense: in turn, 16 rows of gate, 16 of up, …
  CpuMatrix gate, up;             // else
  CpuMatrix down;                 // [hidden, width]
  int width = 0;

  bool is_fused() const { return !gate_up.empty(); }
  bool is_dense() const { return is_fused() && down.dense() != nullptr; }
  // Hidden values are shared out in units of whole blocks of gate and up.
  int unit() const { return is_fused() ? 16 : std::max(gate.block_rows(), up.block_rows()); }
  int n_units() const { return (width + unit() - 1) / unit(); }
  std::size_t bytes() const { return gate_up.bytes() + gate.bytes() + up.bytes() + down.bytes(); }
};

struct CpuLayer {
  std::vector<float> input_norm, q_a_norm, kv_a_norm, post_attention_norm;
  CpuMatrix q_a, q_b, kv_a, o;
  std::vector<kernels::PackedMatrix> key_up;    // per head, [kv_lora, qk_nope]: kv_b's key rows
  std::vector<kernels::PackedMatrix> value_up;  // per head, [v_head, kv_lora]: kv_b's value rows
  CpuMatrix index_q, index_k, index_weights;
  std::vector<float> index_norm_weight, index_norm_bias;
  CpuMatrix router;
  std::vector<float> router_bias;
  CpuMlp mlp;  // dense layers: the MLP; sparse layers: the shared experts
  std::vector<CpuMlp> experts;
  bool is_dense_moe = true;  // no expert is held as codes
};

class CpuModel final : public BackendModel, public std::enable_shared_from_this<CpuModel> {
 public:
  CpuModel(const ModelConfig& config, const ModelWeights& weights, kernels::CpuTarget target,
           std::shared_ptr<CpuPacker> packer);

  std::string_view backend() const override { return "cpu"; }
  std::string kernel() const override { return std::string(kernels::cpu_target_name(target)); }
  bool samples_on_device() const override { return false; }
  std::size_t weight_bytes() const override { return weight_bytes_; }
  Result<std::unique_ptr<Backend>> new_executor(int n_threads, const StepLimits&) const override;
  Result<std::shared_ptr<const BackendModel>> with(const ModelConfig& other,
                                                   const ModelWeights& weights) const override;

  const ModelConfig config;
  const std::shared_ptr<CpuPacker> packer;  // holds every packed matrix
  const kernels::CpuTarget target;
  const kernels::RopeTable rope;
  const float attention_scale;        // qk_head^-0.5
  const kernels::WeightMatrix embed;  // in the mapped file: a token reads one row
  std::vector<float> final_norm;
  CpuMatrix lm_head;
  std::vector<CpuLayer> layers;
  const std::vector<std::shared_ptr<const void>> owned;  // codebooks

 private:
  std::size_t weight_bytes_ = 0;
};

}  // namespace assay::engine
