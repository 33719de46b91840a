// A model cut into ranks (tensor parallelism): each gets every layer, with its heads, its part of
// every MLP's inner dimension, and its part of the vocabulary. docs/design/tensor-parallel.md
#pragma once

#include <vector>

#include "base/result.h"
#include "engine/backend/matrix_slice.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/weights.h"

namespace assay::engine {

// A rank's model: of the whole's shapes but for n_heads, vocab (of lm_head; the embedding is whole)
// and the MLPs' widths, of which config says the routed experts' and each matrix its own.
struct Shard {
  ModelConfig config;
  ModelWeights weights;
};

class Sharding {
 public:
  // An error where the heads, an inner dimension or the vocabulary cannot be shared by so many.
  // `config` and `weights` must outlive the sharding, and what they point to the shards.
  static Result<Sharding> plan(const ModelConfig& config, const ModelWeights& weights, int n_ranks);

  // Rows of q_b, kv_b, gate, up and lm_head, columns of o and down; all else is the whole's.
  Shard of_rank(int rank) const;

  // (n_ranks + 1): rank r has the logits [cuts[r], cuts[r + 1]).
  const std::vector<int>& vocab_cuts() const { return vocab_; }

 private:
  using Cuts = std::vector<int>;  // as vocab_cuts

  const ModelConfig* config_ = nullptr;
  const ModelWeights* weights_ = nullptr;
  int n_ranks_ = 1;
  Cuts vocab_, experts_;
  std::vector<Cuts> mlp_;  // by layer: of the dense MLP or the shared experts

  static MlpWeights part_of(const MlpWeights& w, const Cuts& cuts, int rank, Owned& owned);
  LayerWeights layer_of(std::size_t layer, int rank, Owned& owned) const;
};

// Where `width` columns of all these matrices are parted for n ranks: at whole scale groups as long
// as no rank gets a quarter more than its share, else at smaller units down to a codeword; every
// part has columns. Empty: there are not enough.
std::vector<int> cut_columns(const std::vector<const Matrix*>& matrices, int width, int n_ranks);

}  // namespace assay::engine
