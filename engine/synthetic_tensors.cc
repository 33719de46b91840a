#include "engine/synthetic_tensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>

#include "base/check.h"
#include "base/hash.h"
#include "base/rng.h"
#include "engine/quantize/binary16.h"

namespace assay::engine {
namespace {

using Fill = SyntheticTensor::Fill;

// Rows of unit gain, as a trained model's are, so that activations neither die out nor grow.
double unit_gain(int n_cols) { return std::sqrt(3.0 / n_cols); }

// A projection's weight [n_rows, n_cols], as weights.h has it.
struct Module {
  std::string name;
  int n_rows, n_cols;
};

std::vector<Module> mlp_modules(const std::string& prefix, int width, int hidden) {
  return {{prefix + "gate_proj", width, hidden},
          {prefix + "up_proj", width, hidden},
          {prefix + "down_proj", hidden, width}};
}

std::vector<Module> expert_modules(const ModelConfig& c, int layer) {
  std::vector<Module> out;
  if (c.is_dense_layer(layer)) return out;
  for (int e = 0; e < c.n_experts; ++e)
    for (Module& m : mlp_modules(fmt::format("model.layers.{}.mlp.experts.{}.", layer, e),
                                 c.moe_intermediate, c.hidden))
      out.push_back(std::move(m));
  return out;
}

std::vector<Module> attention_modules(const ModelConfig& c, int layer) {
  const std::string a = fmt::format("model.layers.{}.self_attn.", layer);
  return {{a + "q_a_proj", c.q_lora, c.hidden},
          {a + "q_b_proj", c.n_heads * c.qk_head(), c.q_lora},
          {a + "kv_a_proj_with_mqa", c.kv_row(), c.hidden},
          {a + "kv_b_proj", c.n_heads * (c.qk_nope + c.v_head), c.kv_lora},
          {a + "o_proj", c.hidden, c.n_heads * c.v_head}};
}

std::vector<Module> indexer_modules(const ModelConfig& c, int layer) {
  if (c.index_topk == 0 || !c.indexer_full[static_cast<std::size_t>(layer)]) return {};
  const std::string x = fmt::format("model.layers.{}.self_attn.indexer.", layer);
  return {{x + "wq_b", c.index_n_heads * c.index_head_dim, c.q_lora},
          {x + "wk", c.index_head_dim, c.hidden},
          {x + "weights_proj", c.index_n_heads, c.hidden}};
}

// The MLP of a dense layer, the shared experts of a sparse one.
std::vector<Module> dense_mlp_modules(const ModelConfig& c, int layer) {
  const std::string p = fmt::format("model.layers.{}.mlp.", layer);
  return c.is_dense_layer(layer) ? mlp_modules(p, c.dense_intermediate, c.hidden)
                                 : mlp_modules(p + "shared_experts.",
                                               c.n_shared_experts * c.moe_intermediate, c.hidden);
}

SyntheticTensor values(std::string name, DType dtype, std::vector<std::int64_t> shape,
                       double centre, double half_width) {
  return {.name = std::move(name),
          .dtype = dtype,
          .shape = std::move(shape),
          .centre = centre,
          .half_width = half_width};
}
SyntheticTensor norm(std::string name, int n) {
  return values(std::move(name), DType::kBf16, {n}, 1, 0.2);
}
SyntheticTensor bits(std::string name, std::vector<std::int64_t> shape, int row_bits = 0) {
  return {.name = std::move(name),
          .dtype = DType::kI32,
          .shape = std::move(shape),
          .fill = Fill::kBits,
          .row_bits = row_bits};
}

int ceil_div(int n, int by) { return (n + by - 1) / by; }

class Model {
 public:
  explicit Model(const ModelConfig& config) : c_(config) {}

  Result<SyntheticModel> make() {
    for (int l = 0; l < c_.n_layers; ++l) ASSAY_TRY_VOID(add_layer(l));
    add(values("model.embed_tokens.weight", DType::kBf16, {c_.vocab, c_.hidden}, 0, 1));
    add(norm("model.norm.weight", c_.hidden));
    if (!c_.tied_embeddings) ASSAY_TRY_VOID(add_projection({"lm_head", c_.vocab, c_.hidden}));
    return std::move(out_);
  }

 private:
  void add(SyntheticTensor tensor) { out_.tensors.push_back(std::move(tensor)); }

  Result<void> add_layer(int l) {
    const std::string p = fmt::format("model.layers.{}.", l), a = p + "self_attn.";
    add(norm(p + "input_layernorm.weight", c_.hidden));
    add(norm(p + "post_attention_layernorm.weight", c_.hidden));
    add(norm(a + "q_a_layernorm.weight", c_.q_lora));
    add(norm(a + "kv_a_layernorm.weight", c_.kv_lora));
    std::vector<Module> modules = attention_modules(c_, l);
    for (const auto& more :
         {indexer_modules(c_, l), dense_mlp_modules(c_, l), expert_modules(c_, l)})
      modules.insert(modules.end(), more.begin(), more.end());
    for (const Module& m : modules) ASSAY_TRY_VOID(add_projection(m));
    if (!indexer_modules(c_, l).empty()) {
      add(norm(a + "indexer.k_norm.weight", c_.index_head_dim));
      add(values(a + "indexer.k_norm.bias", DType::kBf16, {c_.index_head_dim}, 0, 0.1));
    }
    if (!c_.is_dense_layer(l)) {
      add(values(p + "mlp.gate.weight", DType::kBf16, {c_.n_experts, c_.hidden}, 0,
                 unit_gain(c_.hidden)));
      add(values(p + "mlp.gate.e_score_correction_bias", DType::kF32, {c_.n_experts}, 0, 0.1));
    }
    return {};
  }

  Result<void> add_projection(const Module& m) {
    const ModuleFormat& f = c_.quantisation.of(m.name);
    switch (f.kind) {
      case ModuleFormat::Kind::kDense:
        add(values(m.name + ".weight", DType::kBf16, {m.n_rows, m.n_cols}, 0, unit_gain(m.n_cols)));
        return {};
      case ModuleFormat::Kind::kVq:
        return add_vq(m, f);
      case ModuleFormat::Kind::kGptq:
        return add_gptq(m, static_cast<int>(f.bits), f.group);
      case ModuleFormat::Kind::kFp8:
        add_fp8(m, f.group);
        return {};
      case ModuleFormat::Kind::kAqlm:
        break;
    }
    return fail(
        "module {} is to be stored as {}, expected VQ, GPTQ, FP8 or none: only these are "
        "made up",
        m.name, name_of(f.kind));
  }

  Result<void> add_vq(const Module& m, const ModuleFormat& f) {
    const int index_bits = std::bit_width(static_cast<unsigned>(f.n_codes - 1));
    if (m.n_cols % f.dim != 0)
      return fail("module {} has {} columns, which codewords of {} values do not divide", m.name,
                  m.n_cols, f.dim);
    const int row_bits = m.n_cols / f.dim * index_bits;
    add(bits(m.name + ".vq_codes", {m.n_rows, ceil_div(row_bits, 32)}, row_bits));
    const double size = 1 / std::sqrt(m.n_cols);
    add(values(m.name + ".vq_scales", DType::kF16, {m.n_rows, ceil_div(m.n_cols, f.group)}, size,
               size / 2));
    if (codebooks_.emplace(std::pair(f.dim, f.n_codes), true).second)
      out_.codebooks.push_back(values(fmt::format("cb{:g}", f.bits), DType::kF16,
                                      {f.n_codes, f.dim}, 0, std::sqrt(3.0)));
    return {};
  }

  Result<void> add_gptq(const Module& m, int n_bits, int group) {
    const int per_word = 32 / n_bits, n_groups = ceil_div(m.n_cols, group);
    if (m.n_cols % per_word != 0 || m.n_rows % per_word != 0)
      return fail("module {} is {} × {}, which words of {} values do not divide", m.name, m.n_rows,
                  m.n_cols, per_word);
    add(bits(m.name + ".qweight", {m.n_cols / per_word, m.n_rows}));
    add(bits(m.name + ".qzeros", {n_groups, m.n_rows / per_word}));
    // A difference of two uniform codes has a standard deviation of 2^bits / √6.
    const double size = std::sqrt(6.0) / (1 << n_bits) / std::sqrt(m.n_cols);
    add(values(m.name + ".scales", DType::kF16, {n_groups, m.n_rows}, size, size / 2));
    return {};
  }

  void add_fp8(const Module& m, int block) {
    add({.name = m.name + ".weight",
         .dtype = DType::kF8E4M3,
         .shape = {m.n_rows, m.n_cols},
         .fill = Fill::kFp8});
    const double size = 0.35 / std::sqrt(m.n_cols);
    add(values(m.name + ".weight_scale_inv", DType::kF32,
               {ceil_div(m.n_rows, block), ceil_div(m.n_cols, block)}, size, size / 2));
  }

  const ModelConfig& c_;
  SyntheticModel out_;
  std::map<std::pair<int, int>, bool> codebooks_;  // by (dim, n_codes)
};

using Words = std::array<std::uint32_t, 4>;

// The 16 bytes of a tensor that block `i` of its random numbers makes.
Words block(const SyntheticTensor& t, std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  Words r =
      philox4x32({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                  static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  if (t.fill == Fill::kBits) return r;
  if (t.fill == Fill::kFp8) {
    for (std::uint32_t& word : r) {
      std::uint32_t out = 0;
      for (int b = 0; b < 32; b += 8) {
        const std::uint32_t byte = word >> b & 0xFF;
        out |= ((byte & 0x80) | (byte & 0x7F) % 0x60) << b;
      }
      word = out;
    }
    return r;
  }
  const auto centre = static_cast<float>(t.centre), half = static_cast<float>(t.half_width);
  for (std::uint32_t& word : r) {
    if (t.dtype == DType::kF32) {
      const float u = static_cast<float>(static_cast<std::int32_t>(word)) * 0x1p-31f;
      word = std::bit_cast<std::uint32_t>(centre + half * u);
      continue;
    }
    std::uint32_t out = 0;
    for (int b = 0; b < 32; b += 16) {
      const float u = static_cast<float>(static_cast<std::int16_t>(word >> b)) * 0x1p-15f;
      const float v = centre + half * u;
      const std::uint32_t bits = t.dtype == DType::kF16 ? std::uint32_t{f32_to_f16(v)}
                                                        : std::bit_cast<std::uint32_t>(v) >> 16;
      out |= bits << b;
    }
    word = out;
  }
  return r;
}

// Code bits of the release's tiers by how many of 24 matrices have them.
struct TierShare {
  int bits, dim, n_of_24;
};
constexpr TierShare kRelease[] = {{1, 8, 13}, {2, 4, 5}, {3, 4, 6}};

// As many matrices of each tier as its share says, shuffled.
std::vector<const TierShare*> deal(std::size_t n, std::uint64_t seed, int layer) {
  std::vector<const TierShare*> deck;
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t at = i * 24 / n;
    const TierShare* tier = std::begin(kRelease);
    while (at >= static_cast<std::size_t>(tier->n_of_24)) {
      at -= static_cast<std::size_t>(tier->n_of_24);
      ++tier;
    }
    deck.push_back(tier);
  }
  for (std::size_t i = n; i > 1; --i) {
    const double u = uniform_at(seed, hash_u64("tiers") + static_cast<std::uint64_t>(layer), i);
    std::swap(deck[i - 1], deck[static_cast<std::size_t>(u * static_cast<double>(i))]);
  }
  return deck;
}

// 0: as it is.
int release_spine_bits(std::string_view module) {
  for (const std::string_view name : {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"})
    if (module.ends_with(name)) return 8;
  return module.find(".indexer.") == std::string_view::npos ? 4 : 0;
}

}  // namespace

std::size_t SyntheticTensor::n_bytes() const {
  std::size_t n = bytes_of(dtype);
  for (const std::int64_t size : shape) n *= static_cast<std::size_t>(size);
  return n;
}

Result<SyntheticModel> synthetic_model(const ModelConfig& config) {
  if (config.quantisation.method() == "mlx-vq")
    return fail(
        "config.json has a \"vq\" of MLX, whose stacks of experts are not made up: leave "
        "it out, or give a quantization_config");
  return Model(config).make();
}

void fill_synthetic(const SyntheticTensor& tensor, std::uint64_t seed, std::size_t first_byte,
                    std::span<std::byte> out) {
  CHECK(first_byte % sizeof(Words) == 0) << first_byte;
  const std::uint64_t stream = hash_u64(tensor.name);
  for (std::size_t at = 0; at < out.size(); at += sizeof(Words)) {
    const Words words = block(tensor, seed, stream, (first_byte + at) / sizeof(Words));
    std::memcpy(out.data() + at, words.data(), std::min(sizeof(Words), out.size() - at));
  }
}

void clear_padding(const SyntheticTensor& tensor, std::span<std::byte> whole) {
  if (tensor.fill != Fill::kBits || tensor.row_bits % 32 == 0) return;
  const std::size_t row_bytes = 4 * static_cast<std::size_t>(tensor.shape.back());
  const std::uint32_t used = (1u << tensor.row_bits % 32) - 1;
  for (std::size_t end = row_bytes; end <= whole.size(); end += row_bytes) {
    std::uint32_t word = 0;
    std::memcpy(&word, whole.data() + end - 4, 4);
    word &= used;
    std::memcpy(whole.data() + end - 4, &word, 4);
  }
}

Json release_quantization(const ModelConfig& c, std::uint64_t seed) {
  Json modules = Json::object();
  const auto add_spine = [&](const Module& m) {
    const int n_bits = release_spine_bits(m.name), per_word = n_bits == 0 ? 0 : 32 / n_bits;
    if (per_word > 0 && m.n_cols % per_word == 0 && m.n_rows % per_word == 0)
      modules[m.name] = {{"bits", n_bits}};
  };
  for (int l = 0; l < c.n_layers; ++l) {
    for (const auto& some : {attention_modules(c, l), dense_mlp_modules(c, l)})
      for (const Module& m : some) add_spine(m);
    const std::vector<Module> experts = expert_modules(c, l);
    const auto tiers = deal(experts.size(), seed, l);
    for (std::size_t i = 0; i < experts.size(); ++i)
      if (experts[i].n_cols % tiers[i]->dim == 0)
        modules[experts[i].name] = {
            {"bits", tiers[i]->bits}, {"format", "vq"}, {"d", tiers[i]->dim}};
  }
  if (!c.tied_embeddings) add_spine({"lm_head", c.vocab, c.hidden});
  return {{"quant_method", "auto-round"},
          {"bits", 16},
          {"group_size", 128},
          {"sym", false},
          {"codebooks_file", "vq_codebooks.safetensors"},
          {"extra_config", std::move(modules)}};
}

}  // namespace assay::engine
