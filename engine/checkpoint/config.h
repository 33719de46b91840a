// config.json of the glm_moe_dsa family (GLM-5, 5.1, 5.2, micro-glm).
// Source: huggingface/transformers models/glm_moe_dsa/configuration_glm_moe_dsa.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/checkpoint/quantisation.h"

namespace assay::engine {

struct ModelConfig {
  int vocab, hidden, n_layers;  // n_layers without the multi-token-prediction layers
  int n_heads;                  // query heads; MLA has one latent KV head
  int q_lora, kv_lora;          // ranks of the query and key/value down-projections
  int qk_nope, qk_rope,
      v_head;  // per head; the query head is nope | rope. config.json's head_dim is not used
  int dense_intermediate, moe_intermediate;
  int n_experts, n_experts_per_token, n_shared_experts, first_dense_layers;
  float routed_scaling;
  bool norm_topk_prob;
  int n_groups, topk_groups;  // router groups; only 1 and 1 occur in the family
  float rms_eps;              // layer norms and final norm
  static constexpr float kLoraRmsEps =
      1e-6f;  // q_a_layernorm and kv_a_layernorm are built without an eps argument
  static constexpr float kIndexerLayerNormEps = 1e-6f;
  double rope_theta;
  bool rope_interleave, indexer_rope_interleave;
  int max_positions;
  int index_n_heads, index_head_dim, index_topk;  // index_topk 0: no indexer, attention is dense
  std::vector<bool>
      indexer_full;  // per layer: own indexer, or false to reuse the last full layer's selection
  int n_mtp_layers;  // num_nextn_predict_layers; their tensors are known and not used
  bool tied_embeddings;
  std::vector<int> eos_ids;  // of config.json
  std::string model_type, dtype;
  Quantisation quantisation;
  // Not a model's: "random weights in the shape of the first 7 of 78 layers" (assay synthesize);
  // else "".
  std::string synthetic;
  // Keys of config.json, its rope_parameters and its quantization_config that are nearly another's
  // name: "norm_topk_prb has no effect: is norm_topk_prob meant?" Other keys that are not known are
  // nothing to speak of: many models of the hub have some.
  std::vector<std::string> misspelt;

  // Of a rank of several, whose `vocab` is its part (backend/shard.h): of all ranks, on the one
  // that samples; 0 on others.
  std::optional<int> sampled_vocab;

  int n_sampled() const { return sampled_vocab.value_or(vocab); }
  int qk_head() const { return qk_nope + qk_rope; }
  int kv_row() const { return kv_lora + qk_rope; }  // cached values per token and layer
  bool is_dense_layer(int layer) const { return layer < first_dense_layers; }
  int n_full_indexers() const;
};

// Every field is checked (type, range, and against the others); a missing or contradicting one is
// an error that names the key, what was expected and what was found.
Result<ModelConfig> load_config(const std::filesystem::path& model_dir);
Result<ModelConfig> parse_config(std::string_view json, std::string_view source);

// generation_config.json; absent file: the defaults below with config.json's eos ids.
struct GenerationConfig {
  bool do_sample = false;
  double temperature = 1.0, top_p = 1.0;
  int top_k = 0;
  std::vector<int> eos_ids;
  std::vector<std::string> misspelt;  // as ModelConfig's
};
Result<GenerationConfig> load_generation_config(const std::filesystem::path& model_dir,
                                                const ModelConfig& config);

// Of both files, with their names: "config.json: norm_topk_prb has no effect: …". A
// generation_config.json that cannot be read is for load_generation_config to say.
std::vector<std::string> misspelt_in_files(const std::filesystem::path& model_dir,
                                           const ModelConfig& config);

}  // namespace assay::engine
