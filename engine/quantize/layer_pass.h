// One decoder layer over every calibration text, in the cpu backend: what quantisation needs to see
// of a model, without holding more than a layer of it.
#pragma once

#include <functional>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/forward.h"
#include "engine/quantize/stop.h"

namespace assay::engine {

// Rows of all texts, one after the other: (n_tokens, width).
using Rows = std::vector<float>;

// What a sparse layer's experts are given.
struct MoeInputs {
  Rows x;                   // (n_tokens, hidden), normed
  std::vector<int> expert;  // (n_tokens, n_experts_per_token)
  // Likewise: what an error in the expert's output weighs, its routing weight divided by the norm
  // of the residual that it is added to. The next norm divides by that, so the few tokens of huge
  // residuals (the first, delimiters) would else hide all others in every sum of squares.
  std::vector<float> weight;
};

class LayerPass {
 public:
  // `text_lengths` in tokens. Attention is dense: a layer alone has no selection to share, and
  // texts up to index_topk tokens select everything. `stop` is asked before every step.
  LayerPass(const ModelConfig& config, std::vector<int> text_lengths, int n_threads, Stop& stop);

  int n_tokens() const { return n_tokens_; }

  // What an error in each token's experts weighs besides (n_tokens); all 1 until it is said.
  void weigh_tokens(std::vector<float> weight) { token_weight_ = std::move(weight); }

  // (n_tokens, hidden) of the embedding.
  Result<Rows> embed(const Matrix& embedding, const std::vector<std::vector<int>>& texts) const;

  // These run `layer` with these weights: residual in, residual out. `see` gets what an Observer
  // sees, a chunk of rows at a time in order; nullptr where nothing is asked.
  using See = std::function<void(std::string_view what, const Backend& backend, Act act)>;
  Result<void> attention(int layer, const LayerWeights& weights, Rows& residual, const See& see);
  // The same without its output, for what is seen on the way.
  Result<void> watch_attention(int layer, const LayerWeights& weights, const Rows& residual,
                               const See& see);
  Result<void> mlp(int layer, const LayerWeights& weights, Rows& residual);

  // What the layer's MLP or experts will be given for this residual (after attention).
  Result<Rows> mlp_inputs(int layer, const LayerWeights& weights, const Rows& residual);
  Result<MoeInputs> moe_inputs(int layer, const LayerWeights& weights, const Rows& residual);

 private:
  template <class Body>
  Result<void> for_each_chunk(int layer, const LayerWeights& weights, const Rows& residual,
                              const Body& body);

  ModelConfig config_;
  std::vector<int> lengths_;
  std::vector<float> token_weight_;
  Stop& stop_;
  int n_threads_, n_tokens_ = 0;
};

}  // namespace assay::engine
