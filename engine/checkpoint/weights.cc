#include "engine/checkpoint/weights.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

namespace assay::engine {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Up to five of a list, a line each: one mistake in config.json can touch every tensor.
template <class Names>
std::string first_few(std::string_view label, const Names& names) {
  std::string out;
  std::size_t n = 0;
  for (const std::string& name : names) {
    if (n++ == 5) break;
    out += fmt::format("\n  {}{}", label, name);
  }
  if (names.size() > 5) out += fmt::format("\n  {}… and {} more", label, names.size() - 5);
  return out;
}

// Looks tensors up, checks them, and collects everything that is wrong, so that one run lists it
// all.
class Binder {
 public:
  explicit Binder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
    for (const auto& [name, tensor] : checkpoint.tensors()) unused_.insert(name);
  }

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  // A tensor with this shape, as a matrix of its last dimension's columns.
  Matrix take(const std::string& name, const std::vector<std::int64_t>& shape) {
    const TensorView* t = checkpoint_.find(name);
    if (t == nullptr) {
      missing_.push_back(fmt::format("{} {}", name, shape_text(shape)));
      return {};
    }
    unused_.erase(name);
    if (t->shape != shape) {
      wrong_.push_back(
          fmt::format("{}: shape {}, expected {}", name, shape_text(t->shape), shape_text(shape)));
      return {};
    }
    if (t->dtype != DType::kBf16 && t->dtype != DType::kF16 && t->dtype != DType::kF32) {
      wrong_.push_back(
          fmt::format("{}: dtype {}, expected BF16, F16 or F32", name, name_of(t->dtype)));
      return {};
    }
    used_.push_back(t);
    return {.dtype = t->dtype,
            .n_rows = static_cast<int>(shape.size() == 1 ? 1 : t->n_elements() / shape.back()),
            .n_cols = static_cast<int>(shape.back()),
            .data = t->bytes.data(),
            .name = name};
  }

  void ignore_prefix(const std::string& prefix) {
    for (auto it = unused_.lower_bound(prefix); it != unused_.end() && it->starts_with(prefix);)
      it = unused_.erase(it);
  }

  Result<void> finish(const std::string& dir) const {
    if (wrong_.empty() && missing_.empty() && unused_.empty()) return {};
    return fail("{}: the tensors do not fit config.json ({} wrong, {} missing, {} surplus):{}{}{}",
                dir, wrong_.size(), missing_.size(), unused_.size(), first_few("", wrong_),
                first_few("missing: ", missing_), first_few("surplus: ", unused_));
  }

  const std::vector<const TensorView*>& used() const { return used_; }

 private:
  const Checkpoint& checkpoint_;
  std::set<std::string> unused_;
  std::vector<std::string> missing_, wrong_;
  std::vector<const TensorView*> used_;
};

Matrix slice(const Matrix& stack, int first_row, int n_rows, int index) {
  if (stack.empty()) return {};
  const std::size_t row_bytes = bytes_of(stack.dtype) * static_cast<std::size_t>(stack.n_cols);
  return {.dtype = stack.dtype,
          .n_rows = n_rows,
          .n_cols = stack.n_cols,
          .data = stack.data + static_cast<std::size_t>(first_row) * row_bytes,
          .name = fmt::format("{}[{}]", stack.name, index)};
}

MlpWeights take_mlp(Binder& b, const std::string& prefix, std::int64_t intermediate,
                    std::int64_t hidden) {
  return {.gate = b.take(prefix + "gate_proj.weight", {intermediate, hidden}),
          .up = b.take(prefix + "up_proj.weight", {intermediate, hidden}),
          .down = b.take(prefix + "down_proj.weight", {hidden, intermediate})};
}

// One tensor per expert and projection (the hub), or gate_up_proj [E, 2I, H] with the gate rows
// first and down_proj [E, H, I] (transformers 5 in memory).
std::vector<MlpWeights> take_experts(Binder& b, const std::string& prefix, const ModelConfig& c) {
  std::vector<MlpWeights> experts;
  const int n = c.n_experts, width = c.moe_intermediate;
  if (!b.has(prefix + "gate_up_proj")) {
    for (int e = 0; e < n; ++e)
      experts.push_back(take_mlp(b, fmt::format("{}{}.", prefix, e), width, c.hidden));
    return experts;
  }
  const Matrix gate_up = b.take(prefix + "gate_up_proj", {n, 2 * width, c.hidden});
  const Matrix down = b.take(prefix + "down_proj", {n, c.hidden, width});
  for (int e = 0; e < n; ++e)
    experts.push_back({.gate = slice(gate_up, 2 * width * e, width, e),
                       .up = slice(gate_up, 2 * width * e + width, width, e),
                       .down = slice(down, c.hidden * e, c.hidden, e)});
  return experts;
}

LayerWeights take_layer(Binder& b, const ModelConfig& c, int layer) {
  const std::string p = fmt::format("model.layers.{}.", layer), a = p + "self_attn.",
                    x = a + "indexer.";
  LayerWeights w;
  w.input_norm = b.take(p + "input_layernorm.weight", {c.hidden});
  w.post_attention_norm = b.take(p + "post_attention_layernorm.weight", {c.hidden});
  w.q_a = b.take(a + "q_a_proj.weight", {c.q_lora, c.hidden});
  w.q_a_norm = b.take(a + "q_a_layernorm.weight", {c.q_lora});
  w.q_b = b.take(a + "q_b_proj.weight", {c.n_heads * c.qk_head(), c.q_lora});
  w.kv_a = b.take(a + "kv_a_proj_with_mqa.weight", {c.kv_row(), c.hidden});
  w.kv_a_norm = b.take(a + "kv_a_layernorm.weight", {c.kv_lora});
  w.kv_b = b.take(a + "kv_b_proj.weight", {c.n_heads * (c.qk_nope + c.v_head), c.kv_lora});
  w.o = b.take(a + "o_proj.weight", {c.hidden, c.n_heads * c.v_head});
  if (c.index_topk > 0 && c.indexer_full[layer]) {
    w.indexer.wq_b = b.take(x + "wq_b.weight", {c.index_n_heads * c.index_head_dim, c.q_lora});
    w.indexer.wk = b.take(x + "wk.weight", {c.index_head_dim, c.hidden});
    w.indexer.weights_proj = b.take(x + "weights_proj.weight", {c.index_n_heads, c.hidden});
    w.indexer.k_norm_weight = b.take(x + "k_norm.weight", {c.index_head_dim});
    w.indexer.k_norm_bias = b.take(x + "k_norm.bias", {c.index_head_dim});
  }
  if (c.is_dense_layer(layer)) {
    w.mlp = take_mlp(b, p + "mlp.", c.dense_intermediate, c.hidden);
  } else {
    w.mlp = take_mlp(b, p + "mlp.shared_experts.",
                     static_cast<std::int64_t>(c.n_shared_experts) * c.moe_intermediate, c.hidden);
    w.router = b.take(p + "mlp.gate.weight", {c.n_experts, c.hidden});
    w.router_bias = b.take(p + "mlp.gate.e_score_correction_bias", {c.n_experts});
    w.experts = take_experts(b, p + "mlp.experts.", c);
  }
  return w;
}

bool same_values(const Matrix& a, const Matrix& b) {
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

Result<void> check_finite_values(const Binder& b, const std::string& dir) {
  for (const TensorView* t : b.used()) {
    const std::int64_t at =
        t->dtype == DType::kF32   ? first_non_finite<std::uint32_t>(t->bytes, 0x7F800000u)
        : t->dtype == DType::kF16 ? first_non_finite<std::uint16_t>(t->bytes, 0x7C00u)
                                  : first_non_finite<std::uint16_t>(t->bytes, 0x7F80u);
    if (at >= 0)
      return fail(
          "{}: tensor {} holds a NaN or an infinity, first at element {} of {} {}. The checkpoint "
          "is damaged: download or make it again.",
          dir, t->name, at, name_of(t->dtype), shape_text(t->shape));
  }
  return {};
}

}  // namespace

Result<ModelWeights> bind_weights(const Checkpoint& checkpoint, bool check_finite) {
  const ModelConfig& c = checkpoint.config();
  Binder b(checkpoint);
  ModelWeights w;
  w.embed = b.take("model.embed_tokens.weight", {c.vocab, c.hidden});
  w.final_norm = b.take("model.norm.weight", {c.hidden});
  w.lm_head = c.tied_embeddings && !b.has("lm_head.weight")
                  ? w.embed
                  : b.take("lm_head.weight", {c.vocab, c.hidden});
  const bool has_own_head = c.tied_embeddings && b.has("lm_head.weight");
  for (int l = 0; l < c.n_layers; ++l) w.layers.push_back(take_layer(b, c, l));
  for (int l = 0; l < c.n_mtp_layers; ++l)
    b.ignore_prefix(fmt::format("model.layers.{}.", c.n_layers + l));
  ASSAY_TRY_VOID(b.finish(checkpoint.dir().string()));
  // Some writers store a tied head all the same; transformers would not read it, so it must agree.
  if (has_own_head && !same_values(w.lm_head, w.embed))
    return fail(
        "{}: tie_word_embeddings is true, but lm_head.weight differs from {}. Correct "
        "tie_word_embeddings in config.json, or remove the tensor.",
        checkpoint.dir().string(), w.embed.name);
  if (has_own_head) w.lm_head = w.embed;
  if (check_finite) ASSAY_TRY_VOID(check_finite_values(b, checkpoint.dir().string()));
  return w;
}

}  // namespace assay::engine
