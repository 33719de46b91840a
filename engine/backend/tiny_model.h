// A random model, made in memory, whose sizes fit nothing: odd widths, rows that fill no vector,
// more than one key block, sparse layers that share a selection.
#pragma once

#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "engine/checkpoint/weights.h"
#include "kernels/dtype.h"

namespace assay::engine {

class TinyModel {
 public:
  explicit TinyModel(DType dtype = DType::kBf16, int n_heads = 3, int hidden = 42,
                     std::uint64_t seed = 1)
      : TinyModel(dtype, n_heads, hidden, seed, Form::kDense) {}

  // Projections in every quantised form in turn, so that an expert mixes them; sizes that the forms
  // can pack, with scale groups that do not divide the rows.
  static TinyModel quantised(std::uint64_t seed = 1, int n_heads = 2) {
    return TinyModel(DType::kBf16, n_heads, 48, seed, Form::kQuantised);
  }
  // Experts as wide as a GPU's partial sums want them, in codewords of 4 of 256; all else in bf16.
  static TinyModel wide_experts(std::uint64_t seed = 1) {
    return TinyModel(DType::kBf16, 4, 1024, seed, Form::kWideExperts);
  }
  // The same, but of codewords of 4 and of 8, of 256 and of 4096, in turn.
  static TinyModel mixed_experts(std::uint64_t seed = 1) {
    return TinyModel(DType::kBf16, 4, 1024, seed, Form::kMixedExperts);
  }

  TinyModel(const TinyModel&) = delete;

  ModelConfig config{};
  ModelWeights weights;

 private:
  enum class Form { kDense, kQuantised, kWideExperts, kMixedExperts };

  TinyModel(DType dtype, int n_heads, int hidden, std::uint64_t seed, Form form)
      : seed_(seed), dtype_(dtype), is_quantised_(form == Form::kQuantised) {
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
    if (is_wide(form)) {
      c.q_lora = c.kv_lora = 64;
      c.qk_nope = c.v_head = c.index_head_dim = 32;
      c.qk_rope = 16;
      c.index_n_heads = 4;
      c.dense_intermediate = 64;
      c.moe_intermediate = 1024;
      c.n_experts = 4;
      c.n_experts_per_token = 2;
    }
    if (is_quantised_) {
      c.q_lora = c.kv_lora = c.moe_intermediate = 24;
      c.qk_nope = c.v_head = 12;
      c.dense_intermediate = 40;
    }

    weights.embed = random(c.vocab, c.hidden, 1);
    weights.final_norm = norm(c.hidden);
    weights.lm_head = projection(c.vocab, c.hidden);
    for (int l = 0; l < c.n_layers; ++l) weights.layers.push_back(layer(l, form));
  }
  LayerWeights layer(int l, Form form) {
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
      w.router = random(c.n_experts, c.hidden, std::sqrt(3.0 / c.hidden));
      w.router_bias = random(1, c.n_experts, 0.1);
      const int width = c.moe_intermediate;
      const auto wide = wide_matrices(form);
      for (int e = 0; e < c.n_experts; ++e)
        w.experts.push_back(is_wide(form) ? MlpWeights{wide(width, c.hidden), wide(width, c.hidden),
                                                       wide(c.hidden, width)}
                                          : mlp(width));
    }
    return w;
  }

  static bool is_wide(Form form) {
    return form == Form::kWideExperts || form == Form::kMixedExperts;
  }
  // Of a layer's experts, one after the other; a tier has one codebook.
  std::function<Matrix(int, int)> wide_matrices(Form form) {
    struct Tier {
      int dim, index_bits;
      const float* book;
    };
    std::vector<Tier> tiers;
    if (is_wide(form)) tiers.push_back({4, 8, nullptr});
    if (form == Form::kMixedExperts)
      for (const Tier& t : {Tier{8, 12, nullptr}, {8, 8, nullptr}, {4, 12, nullptr}})
        tiers.push_back(t);
    for (Tier& t : tiers) t.book = codebook(t.dim << t.index_bits, std::sqrt(3.0));
    return [this, tiers, n = std::size_t{0}](int n_rows, int n_cols) mutable {
      // Every tier is some expert's gate, up and down.
      const Tier& t = tiers[n++ % tiers.size()];
      return vq(n_rows, n_cols, t.dim, t.index_bits, 1, 128, t.book);
    };
  }

  Matrix norm(int n) { return random(1, n, 0.2, 1.0); }
  // Rows of unit gain, as a trained model's are, so that activations neither die out nor grow.
  Matrix projection(int n_rows, int n_cols) {
    if (is_quantised_) return coded(n_rows, n_cols);
    return random(n_rows, n_cols, std::sqrt(3.0 / n_cols));
  }
  Matrix coded(int n_rows, int n_cols) {
    using Kind = kernels::ScaledMatrix::Kind;
    const bool packs = n_rows % 8 == 0 && n_cols % 8 == 0;
    switch (n_coded_++ % 8) {
      case 0:
        return vq(n_rows, n_cols, 8, 8);
      case 1:
        return vq(n_rows, n_cols, 4, 8);
      case 2:
        return packs ? gptq(n_rows, n_cols, 8) : vq(n_rows, n_cols, 2, 3);
      case 3:
        return vq(n_rows, n_cols, 8, 12);
      case 4:
        return packs ? gptq(n_rows, n_cols, 4) : vq(n_rows, n_cols, 1, 2);
      case 5:
        return vq(n_rows, n_cols, 4, 12);
      case 6:
        return vq(n_rows, n_cols, 8, 8, 2);
      default:
        break;
    }
    Matrix m{.n_rows = n_rows, .n_cols = n_cols, .name = next_name()};
    const std::byte* values = bytes(n_rows * n_cols, [](unsigned random) {
      return static_cast<std::byte>(random % 0x60 | (random & 0x100) >> 1);  // up to ± 13, no NaN
    });
    const std::vector<float> one(
        static_cast<std::size_t>((n_rows + 15) / 16 * ((n_cols + 15) / 16)),
        static_cast<float>(0.35 / std::sqrt(n_cols)));
    m.codes = kernels::ScaledMatrix{.kind = Kind::kFp8E4m3,
                                    .values = values,
                                    .scales = keep(one.data(), one.size() * 4),
                                    .n_rows = n_rows,
                                    .n_cols = n_cols,
                                    .group = 16};
    return m;
  }

  Matrix vq(int n_rows, int n_cols, int dim, int index_bits, int n_books = 1, int group = 16,
            const float* book = nullptr) {
    kernels::VqMatrix w{.n_rows = n_rows,
                        .n_cols = n_cols,
                        .dim = dim,
                        .n_codes = 1 << index_bits,
                        .index_bits = index_bits,
                        .n_books = n_books,
                        .group = group};
    w.codebook =
        book != nullptr ? book : codebook(n_books * w.n_codes * dim, std::sqrt(3.0 / n_books));
    w.codes = bytes(n_rows * w.row_words() * 4,
                    [](unsigned random) { return static_cast<std::byte>(random); });
    w.scales = scales(n_rows * w.n_groups(), 1 / std::sqrt(n_cols));
    return {.n_rows = n_rows, .n_cols = n_cols, .name = next_name(), .codes = w};
  }

  const float* codebook(int n, double half_width) {
    std::vector<float>& book = books_.emplace_back();
    for (int i = 0; i < n; ++i)
      book.push_back(kernels::f16_to_f32(f16(half_width * (2 * draw() - 1))));
    return book.data();
  }

  Matrix gptq(int n_rows, int n_cols, int bits) {
    const int n_groups = (n_cols + 15) / 16;
    const auto any = [](unsigned random) { return static_cast<std::byte>(random); };
    Matrix m{.n_rows = n_rows, .n_cols = n_cols, .name = next_name()};
    m.codes = kernels::ScaledMatrix{
        .kind =
            bits == 4 ? kernels::ScaledMatrix::Kind::kGptq4 : kernels::ScaledMatrix::Kind::kGptq8,
        .values = bytes(n_cols * n_rows * bits / 8, any),
        .scales = scales(n_groups * n_rows, 2.4 / (1 << bits) / std::sqrt(n_cols)),
        .zeros = bytes(n_groups * n_rows * bits / 8, any),
        .n_rows = n_rows,
        .n_cols = n_cols,
        .group = 16};
    return m;
  }

  double draw() { return uniform_at(seed_, 1000, n_drawn_++); }
  static std::uint16_t f16(double value) {  // truncated: |value| from 2^-14 to 2^15
    std::uint32_t b;
    const auto single = static_cast<float>(value);
    std::memcpy(&b, &single, 4);
    if ((b >> 23 & 255) < 113) return 0;
    return static_cast<std::uint16_t>((b >> 16 & 0x8000) | ((b >> 13 & 0x3FFFF) - (112 << 10)));
  }
  const std::byte* keep(const void* data, std::size_t n) {
    const auto* from = static_cast<const std::byte*>(data);
    return storage_.emplace_back(from, from + n).data();
  }
  template <class Make>
  const std::byte* bytes(int n, const Make& make) {
    std::vector<std::byte> out;
    for (int i = 0; i < n; ++i) out.push_back(make(static_cast<unsigned>(draw() * 512)));
    return keep(out.data(), out.size());
  }
  const std::byte* scales(int n, double size) {
    std::vector<std::uint16_t> out;
    for (int i = 0; i < n; ++i) out.push_back(f16(size * (0.5 + draw())));
    return keep(out.data(), out.size() * 2);
  }
  std::string next_name() { return "tiny." + std::to_string(++n_matrices_); }

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

  std::uint64_t seed_, n_matrices_ = 0, n_coded_ = 0, n_drawn_ = 0;
  DType dtype_;
  bool is_quantised_;
  std::deque<std::vector<float>> books_;
  std::deque<std::vector<std::byte>> storage_;
};

}  // namespace assay::engine
