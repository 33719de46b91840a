// A random model, made in memory, whose sizes fit nothing: odd widths, rows that fill no vector,
// more than one key block, sparse layers that share a selection.
#pragma once

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "base/rng.h"
#include "engine/checkpoint/weights.h"

namespace assay::engine {

class TinyModel {
 public:
  explicit TinyModel(DType dtype = DType::kBf16, int n_heads = 3, int hidden = 42,
                     std::uint64_t seed = 1)
      : seed_(seed), dtype_(dtype) {
    ModelConfig& c = config;
    c.vocab = 61;
    c.hidden = hidden;
    c.n_layers = 5;
    c.n_heads = n_heads;
    c.q_lora = 23;
    c.kv_lora = 21;
    c.qk_nope = 11;
    c.qk_rope = 8;
    c.v_head = 13;
    c.dense_intermediate = 37;
    c.moe_intermediate = 19;
    c.n_experts = 7;
    c.n_experts_per_token = 3;
    c.n_shared_experts = 1;
    c.first_dense_layers = 1;
    c.routed_scaling = 2.5f;
    c.norm_topk_prob = true;
    c.n_groups = c.topk_groups = 1;
    c.rms_eps = 1e-5f;
    c.rope_theta = 10000;
    c.rope_interleave = c.indexer_rope_interleave = true;
    c.max_positions = 4096;
    c.index_n_heads = 11;
    c.index_head_dim = 10;
    c.index_topk = 70;
    c.indexer_full = {true, true, false, false, true};
    c.n_mtp_layers = 0;
    c.tied_embeddings = false;

    weights.embed = random(c.vocab, c.hidden, 1);
    weights.final_norm = norm(c.hidden);
    weights.lm_head = projection(c.vocab, c.hidden);
    for (int l = 0; l < c.n_layers; ++l) weights.layers.push_back(layer(l));
  }
  TinyModel(const TinyModel&) = delete;

  ModelConfig config{};
  ModelWeights weights;

 private:
  LayerWeights layer(int l) {
    const ModelConfig& c = config;
    LayerWeights w;
    w.input_norm = norm(c.hidden);
    w.post_attention_norm = norm(c.hidden);
    w.q_a = projection(c.q_lora, c.hidden);
    w.q_a_norm = norm(c.q_lora);
    w.q_b = projection(c.n_heads * c.qk_head(), c.q_lora);
    w.kv_a = projection(c.kv_row(), c.hidden);
    w.kv_a_norm = norm(c.kv_lora);
    w.kv_b = projection(c.n_heads * (c.qk_nope + c.v_head), c.kv_lora);
    w.o = projection(c.hidden, c.n_heads * c.v_head);
    if (c.indexer_full[l]) {
      w.indexer.wq_b = projection(c.index_n_heads * c.index_head_dim, c.q_lora);
      w.indexer.wk = projection(c.index_head_dim, c.hidden);
      w.indexer.weights_proj = projection(c.index_n_heads, c.hidden);
      w.indexer.k_norm_weight = norm(c.index_head_dim);
      w.indexer.k_norm_bias = random(1, c.index_head_dim, 0.1);
    }
    const auto mlp = [&](int width) {
      return MlpWeights{projection(width, c.hidden), projection(width, c.hidden),
                        projection(c.hidden, width)};
    };
    w.mlp = mlp(c.is_dense_layer(l) ? c.dense_intermediate : c.moe_intermediate);
    if (!c.is_dense_layer(l)) {
      w.router = projection(c.n_experts, c.hidden);
      w.router_bias = random(1, c.n_experts, 0.1);
      for (int e = 0; e < c.n_experts; ++e) w.experts.push_back(mlp(c.moe_intermediate));
    }
    return w;
  }

  Matrix norm(int n) { return random(1, n, 0.2, 1.0); }
  // Rows of unit gain, as a trained model's are, so that activations neither die out nor grow.
  Matrix projection(int n_rows, int n_cols) {
    return random(n_rows, n_cols, std::sqrt(3.0 / n_cols));
  }
  // Uniform in centre ± half_width.
  Matrix random(int n_rows, int n_cols, double half_width, double centre = 0) {
    const std::size_t n = static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols);
    storage_.emplace_back(n * (dtype_ == DType::kF32 ? 4 : 2));
    std::byte* out = storage_.back().data();
    for (std::size_t i = 0; i < n; ++i) {
      const auto value =
          static_cast<float>(centre + half_width * (2 * uniform_at(seed_, n_matrices_, i) - 1));
      if (dtype_ == DType::kF32) {
        std::memcpy(out + 4 * i, &value, 4);
      } else {
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        const auto half = static_cast<std::uint16_t>(bits >> 16);
        std::memcpy(out + 2 * i, &half, 2);
      }
    }
    ++n_matrices_;
    return {dtype_, n_rows, n_cols, out, "tiny." + std::to_string(n_matrices_)};
  }

  std::uint64_t seed_, n_matrices_ = 0;
  DType dtype_;
  std::deque<std::vector<std::byte>> storage_;
};

}  // namespace assay::engine
