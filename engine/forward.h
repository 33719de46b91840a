// GLM's forward pass over a ragged batch (transformers: models/glm_moe_dsa/modular_glm_moe_dsa.py).
#pragma once

#include <span>
#include <string>

#include "engine/backend/backend.h"

namespace assay::engine {

// Sees every named intermediate: "embed", "layer3.input_norm", "layer3.q_resid", "layer3.q",
// "layer3.kv_a", "layer3.attention", "layer3.after_attention", "layer3.post_attention_norm",
// "layer3" (the layer's output), "norm"; and what index and route decided.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_tensor(const std::string& name, const Backend& backend, Act act) = 0;
  virtual void on_selection(int layer, const Backend& backend) = 0;
  virtual void on_routing(int layer, const Backend& backend) = 0;
};

// The two halves of a decoder layer, each kResidual → kResidual, between begin_step and end_step.
void attention_block(Backend& backend, const ModelConfig& config, int layer, bool sparse,
                     Observer* observer = nullptr);
void mlp_block(Backend& backend, const ModelConfig& config, int layer,
               Observer* observer = nullptr);

// What is wanted of a step's rows, by row number: logits, samples, or both.
struct StepOutput {
  std::span<const int> logit_rows;
  std::span<float> logits;  // (logit_rows.size(), vocab)
  std::span<const int> sample_rows = {};
  std::span<const SampleRequest> requests = {};  // (sample_rows.size())
  std::span<Sampled> sampled = {};               // likewise
};

// Runs every layer over `rows`, writes what is wanted, and makes the caches' new rows count.
void forward(Backend& backend, const ModelConfig& config, const StepRows& rows, bool sparse,
             const StepOutput& output, Observer* observer = nullptr);

}  // namespace assay::engine
