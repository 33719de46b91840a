#include "engine/checkpoint/weights.h"

#include <algorithm>
#include <cstring>

#include "engine/checkpoint/binder.h"

namespace assay::engine {
namespace {

Matrix slice(const Matrix& stack, int first_row, int n_rows, int index) {
  if (stack.empty()) return {};
  const std::size_t row_bytes = bytes_of(stack.dtype) * static_cast<std::size_t>(stack.n_cols);
  return {.dtype = stack.dtype,
          .n_rows = n_rows,
          .n_cols = stack.n_cols,
          .data = stack.data + static_cast<std::size_t>(first_row) * row_bytes,
          .name = fmt::format("{}[{}]", stack.name, index)};
}

MlpWeights take_mlp(Binder& b, const std::string& prefix, int intermediate, int hidden) {
  return {.gate = b.take_projection(prefix + "gate_proj", intermediate, hidden),
          .up = b.take_projection(prefix + "up_proj", intermediate, hidden),
          .down = b.take_projection(prefix + "down_proj", hidden, intermediate)};
}

// One module per expert and projection (the hub), gate_up_proj [E, 2I, H] with the gate rows first
// and down_proj [E, H, I] (transformers 5 in memory), or a stack of codes per projection (MLX).
std::vector<MlpWeights> take_experts(Binder& b, const std::string& prefix, const ModelConfig& c) {
  std::vector<MlpWeights> experts;
  const int n = c.n_experts, width = c.moe_intermediate;
  if (b.has(prefix + "gate_up_proj")) {
    const Matrix gate_up = b.take(prefix + "gate_up_proj", {n, 2 * width, c.hidden});
    const Matrix down = b.take(prefix + "down_proj", {n, c.hidden, width});
    for (int e = 0; e < n; ++e)
      experts.push_back({.gate = slice(gate_up, 2 * width * e, width, e),
                         .up = slice(gate_up, 2 * width * e + width, width, e),
                         .down = slice(down, c.hidden * e, c.hidden, e)});
    return experts;
  }
  // MLX stacks each projection beside "experts".
  const std::string stack = prefix.substr(0, prefix.size() - 8) + "switch_mlp.";
  if (c.quantisation.method() == "mlx-vq" &&
      c.quantisation.modules().contains(stack + "gate_proj")) {
    const auto gate = b.take_vq_stack(stack + "gate_proj", n, width, c.hidden);
    const auto up = b.take_vq_stack(stack + "up_proj", n, width, c.hidden);
    const auto down = b.take_vq_stack(stack + "down_proj", n, c.hidden, width);
    for (std::size_t e = 0; e < gate.size() && e < up.size() && e < down.size(); ++e)
      experts.push_back({.gate = gate[e], .up = up[e], .down = down[e]});
    return experts;
  }
  for (int e = 0; e < n; ++e)
    experts.push_back(take_mlp(b, fmt::format("{}{}.", prefix, e), width, c.hidden));
  return experts;
}

LayerWeights take_layer(Binder& b, const ModelConfig& c, int layer) {
  const std::string p = fmt::format("model.layers.{}.", layer), a = p + "self_attn.",
                    x = a + "indexer.";
  LayerWeights w;
  w.input_norm = b.take(p + "input_layernorm.weight", {c.hidden});
  w.post_attention_norm = b.take(p + "post_attention_layernorm.weight", {c.hidden});
  w.q_a = b.take_projection(a + "q_a_proj", c.q_lora, c.hidden);
  w.q_a_norm = b.take(a + "q_a_layernorm.weight", {c.q_lora});
  w.q_b = b.take_projection(a + "q_b_proj", c.n_heads * c.qk_head(), c.q_lora);
  w.kv_a = b.take_projection(a + "kv_a_proj_with_mqa", c.kv_row(), c.hidden);
  w.kv_a_norm = b.take(a + "kv_a_layernorm.weight", {c.kv_lora});
  w.kv_b = b.take_projection(a + "kv_b_proj", c.n_heads * (c.qk_nope + c.v_head), c.kv_lora);
  w.o = b.take_projection(a + "o_proj", c.hidden, c.n_heads * c.v_head);
  if (c.index_topk > 0 && c.indexer_full[layer]) {
    w.indexer.wq_b = b.take_projection(x + "wq_b", c.index_n_heads * c.index_head_dim, c.q_lora);
    w.indexer.wk = b.take_projection(x + "wk", c.index_head_dim, c.hidden);
    w.indexer.weights_proj = b.take_projection(x + "weights_proj", c.index_n_heads, c.hidden);
    w.indexer.k_norm_weight = b.take(x + "k_norm.weight", {c.index_head_dim});
    w.indexer.k_norm_bias = b.take(x + "k_norm.bias", {c.index_head_dim});
  }
  if (c.is_dense_layer(layer)) {
    w.mlp = take_mlp(b, p + "mlp.", c.dense_intermediate, c.hidden);
  } else {
    w.mlp =
        take_mlp(b, p + "mlp.shared_experts.", c.n_shared_experts * c.moe_intermediate, c.hidden);
    w.router = b.take(p + "mlp.gate.weight", {c.n_experts, c.hidden});
    w.router_bias = b.take(p + "mlp.gate.e_score_correction_bias", {c.n_experts});
    w.experts = take_experts(b, p + "mlp.experts.", c);
  }
  return w;
}

bool same_values(const Matrix& a, const Matrix& b) {
  if (!a.is_dense() || !b.is_dense()) return false;
  const std::size_t n_bytes =
      bytes_of(a.dtype) * static_cast<std::size_t>(a.n_rows) * static_cast<std::size_t>(a.n_cols);
  return a.dtype == b.dtype && std::memcmp(a.data, b.data, n_bytes) == 0;
}

// Index of the first NaN or infinity, or -1: those are the values whose exponent bits are all ones.
template <class Word>
std::int64_t first_non_finite(std::span<const std::byte> bytes, Word exponent) {
  const std::int64_t n = static_cast<std::int64_t>(bytes.size() / sizeof(Word));
  constexpr std::int64_t kBlock = 4096;
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(n, begin + kBlock);
    unsigned any = 0;  // no branch inside, so that the compiler can use vectors
    for (std::int64_t i = begin; i < end; ++i) {
      Word w;
      std::memcpy(&w, bytes.data() + i * static_cast<std::int64_t>(sizeof(Word)), sizeof(Word));
      any |= static_cast<unsigned>((w & exponent) == exponent);
    }
    if (any == 0) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      Word w;
      std::memcpy(&w, bytes.data() + i * static_cast<std::int64_t>(sizeof(Word)), sizeof(Word));
      if ((w & exponent) == exponent) return i;
    }
  }
  return -1;
}

// E4M3 has no infinity; its NaNs are 0x7F and 0xFF.
std::int64_t first_fp8_nan(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if ((bytes[i] & std::byte{0x7F}) == std::byte{0x7F}) return static_cast<std::int64_t>(i);
  return -1;
}

Result<void> check_finite_values(const Binder& b, const std::string& dir) {
  for (const TensorView* t : b.used()) {
    const std::int64_t at =
        t->dtype == DType::kF32      ? first_non_finite<std::uint32_t>(t->bytes, 0x7F800000u)
        : t->dtype == DType::kF16    ? first_non_finite<std::uint16_t>(t->bytes, 0x7C00u)
        : t->dtype == DType::kBf16   ? first_non_finite<std::uint16_t>(t->bytes, 0x7F80u)
        : t->dtype == DType::kF8E4M3 ? first_fp8_nan(t->bytes)
                                     : -1;  // codes
    if (at >= 0)
      return fail(
          "{}: tensor {} holds a NaN or an infinity, first at element {} of {} {}. The checkpoint "
          "is damaged: download or make it again.",
          dir, t->name, at, name_of(t->dtype), fmt::format("[{}]", fmt::join(t->shape, ", ")));
  }
  return {};
}

}  // namespace

std::vector<const Matrix*> all_matrices(const ModelWeights& weights) {
  std::vector<const Matrix*> out;
  const auto add = [&](std::initializer_list<const Matrix*> matrices) {
    for (const Matrix* m : matrices)
      if (!m->empty()) out.push_back(m);
  };
  const auto add_mlp = [&](const MlpWeights& mlp) { add({&mlp.gate, &mlp.up, &mlp.down}); };
  add({&weights.embed, &weights.final_norm});
  if (weights.lm_head.name != weights.embed.name) add({&weights.lm_head});
  for (const LayerWeights& l : weights.layers) {
    add({&l.input_norm, &l.post_attention_norm, &l.q_a, &l.q_a_norm, &l.q_b, &l.kv_a, &l.kv_a_norm,
         &l.kv_b, &l.o});
    const IndexerWeights& x = l.indexer;
    add({&x.wq_b, &x.wk, &x.weights_proj, &x.k_norm_weight, &x.k_norm_bias});
    add_mlp(l.mlp);
    add({&l.router, &l.router_bias});
    for (const MlpWeights& expert : l.experts) add_mlp(expert);
  }
  return out;
}

Result<ModelWeights> bind_weights(const Checkpoint& checkpoint, bool check_finite) {
  const ModelConfig& c = checkpoint.config();
  Binder b(checkpoint);
  ModelWeights w;
  w.embed = b.take("model.embed_tokens.weight", {c.vocab, c.hidden});
  w.final_norm = b.take("model.norm.weight", {c.hidden});
  w.lm_head = c.tied_embeddings && !b.has("lm_head.weight")
                  ? w.embed
                  : b.take_projection("lm_head", c.vocab, c.hidden);
  const bool has_own_head = c.tied_embeddings && b.has("lm_head.weight");
  for (int l = 0; l < c.n_layers; ++l) w.layers.push_back(take_layer(b, c, l));
  for (int l = 0; l < c.n_mtp_layers; ++l)
    b.ignore_prefix(fmt::format("model.layers.{}.", c.n_layers + l));
  ASSAY_TRY_VOID(b.finish());
  // Some writers store a tied head all the same; transformers would not read it, so it must agree.
  if (has_own_head && !same_values(w.lm_head, w.embed))
    return fail(
        "{}: tie_word_embeddings is true, but lm_head.weight differs from {}. Correct "
        "tie_word_embeddings in config.json, or remove the tensor.",
        checkpoint.dir().string(), w.embed.name);
  if (has_own_head) w.lm_head = w.embed;
  w.owned = b.take_owned();
  if (check_finite) ASSAY_TRY_VOID(check_finite_values(b, checkpoint.dir().string()));
  return w;
}

}  // namespace assay::engine
