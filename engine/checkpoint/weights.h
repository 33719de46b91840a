// The tensors of a GLM checkpoint, found, checked and given their roles. Views into the mapped
// files: nothing is copied.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/checkpoint/checkpoint.h"
#include "kernels/quantised.h"

namespace assay::engine {

// A row-major matrix [n_rows, n_cols] (a projection's weight: n_rows outputs, n_cols inputs) or a
// vector (n_rows = 1); dense, or as the codes of one of the quantised formats.
struct Matrix {
  DType dtype = DType::kBf16;  // dense: kBf16, kF16 or kF32
  int n_rows = 0, n_cols = 0;
  const std::byte* data = nullptr;  // dense
  std::string name;  // the tensor or module, and for a slice of a stack its index: "…up_proj[3]"
  std::variant<std::monostate, kernels::VqMatrix, kernels::ScaledMatrix> codes = {};
  bool is_dense() const { return codes.index() == 0; }
  bool empty() const { return n_rows == 0; }
};

struct MlpWeights {
  Matrix gate, up, down;  // [intermediate, hidden] twice, [hidden, intermediate]
};

struct IndexerWeights {               // only layers with config.indexer_full
  Matrix wq_b;                        // [index_n_heads * index_head_dim, q_lora]
  Matrix wk;                          // [index_head_dim, hidden]
  Matrix weights_proj;                // [index_n_heads, hidden]
  Matrix k_norm_weight, k_norm_bias;  // [index_head_dim]
};

struct LayerWeights {
  Matrix input_norm, post_attention_norm;  // [hidden]
  Matrix q_a, q_a_norm,
      q_b;  // [q_lora, hidden], [q_lora], [n_heads * qk_head, q_lora] (nope first)
  Matrix kv_a, kv_a_norm,
      kv_b;  // [kv_lora + qk_rope, hidden], [kv_lora], [n_heads * (qk_nope + v_head), kv_lora]
  Matrix o;  // [hidden, n_heads * v_head]
  IndexerWeights indexer;
  MlpWeights mlp;      // dense layers: the MLP. Sparse layers: the shared experts as one MLP
  Matrix router;       // [n_experts, hidden]
  Matrix router_bias;  // [n_experts], added for the choice only
  std::vector<MlpWeights>
      experts;  // [n_experts], from one tensor per expert or from gate_up_proj stacks
};

struct ModelWeights {
  Matrix embed, final_norm, lm_head;  // [vocab, hidden], [hidden], [vocab, hidden]
  std::vector<LayerWeights> layers;
  // What quantised matrices point to that is not in the file as it is: codebooks widened to float,
  // codes that had to be laid out anew.
  std::vector<std::shared_ptr<const void>> owned;
};

// Every matrix and vector once (a tied head is the embedding).
std::vector<const Matrix*> all_matrices(const ModelWeights& weights);

// Checks every tensor's name, dtype and shape against the config before any is used: missing and
// surplus tensors, wrong shapes and dtypes are listed by name (the first five of each and how many
// more). Tensors of multi-token-prediction layers are allowed and skipped. With `check_finite`,
// every value is read once and the first NaN or Inf is reported by tensor and index.
Result<ModelWeights> bind_weights(const Checkpoint& checkpoint, bool check_finite = true);

}  // namespace assay::engine
