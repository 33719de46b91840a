#include "engine/forward.h"

#include <fmt/format.h>

namespace assay::engine {
namespace {

// Shows an observer what a layer computed.
struct Show {
  Observer* observer;
  const Backend& backend;
  void operator()(int layer, const char* what, Act act) const {
    if (observer != nullptr)
      observer->on_tensor(fmt::format("layer{}{}", layer, what), backend, act);
  }
};

}  // namespace

void attention_block(Backend& b, const ModelConfig& config, int l, bool sparse,
                     Observer* observer) {
  const Show saw{observer, b};
  // Multi-head latent attention: queries through a low rank, keys and values as one cached latent
  // and one rope key.
  b.rms_norm(l, Norm::kInput, Act::kResidual, Act::kNormed);
  saw(l, ".input_norm", Act::kNormed);
  b.project(l, Projection::kQueryA, Act::kNormed, Act::kQueryLora);
  b.rms_norm(l, Norm::kQueryLora, Act::kQueryLora, Act::kQueryResid);
  saw(l, ".q_resid", Act::kQueryResid);
  b.project(l, Projection::kQueryB, Act::kQueryResid, Act::kQuery);
  saw(l, ".q", Act::kQuery);
  b.project(l, Projection::kKvA, Act::kNormed, Act::kKvLora);
  saw(l, ".kv_a", Act::kKvLora);
  b.append_kv(l);

  // Sparse attention: a full layer chooses each query's keys, the shared layers after it reuse
  // the choice.
  if (sparse && config.indexer_full[l]) {
    b.index(l);
    if (observer != nullptr) observer->on_selection(l, b);
  }
  b.mla_attention(l, sparse);
  saw(l, ".attention", Act::kAttention);
  b.project_add(l, Projection::kOutput, Act::kAttention, Act::kResidual);
  saw(l, ".after_attention", Act::kResidual);
}

void mlp_block(Backend& b, const ModelConfig& config, int l, Observer* observer) {
  const Show saw{observer, b};
  b.rms_norm(l, Norm::kPostAttention, Act::kResidual, Act::kNormed);
  saw(l, ".post_attention_norm", Act::kNormed);
  if (config.is_dense_layer(l)) {
    b.mlp(l);
  } else {
    b.route(l);
    if (observer != nullptr) observer->on_routing(l, b);
    b.moe(l);
  }
  saw(l, "", Act::kResidual);
}

void forward(Backend& b, const ModelConfig& config, const StepRows& rows, bool sparse,
             const StepOutput& output, Observer* observer) {
  b.begin_step(rows);
  b.embed();
  if (observer != nullptr) observer->on_tensor("embed", b, Act::kResidual);
  for (int l = 0; l < config.n_layers; ++l) {
    attention_block(b, config, l, sparse, observer);
    mlp_block(b, config, l, observer);
  }
  b.rms_norm(0, Norm::kFinal, Act::kResidual, Act::kFinal);
  if (observer != nullptr) observer->on_tensor("norm", b, Act::kFinal);
  b.logits(output.logit_rows, output.logits);
  if (!output.sample_rows.empty()) b.sample(output.sample_rows, output.requests, output.sampled);
  b.end_step();
}

}  // namespace assay::engine
