#include "engine/quantize/encode_layer.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/matrix_view.h"
#include "engine/quantize/expert_hessians.h"
#include "engine/quantize/gptq_scalar.h"
#include "engine/quantize/hessian.h"
#include "engine/quantize/pack.h"

namespace assay::engine {
namespace {

// Without ".weight", as config.json names modules.
std::string module_of(const Matrix& m) {
  return m.name.ends_with(".weight") ? m.name.substr(0, m.name.size() - 7) : m.name;
}

NewTensor copy_of(const Matrix& m) {
  const std::size_t n =
      bytes_of(m.dtype) * static_cast<std::size_t>(m.n_rows) * static_cast<std::size_t>(m.n_cols);
  std::vector<std::int64_t> shape = {m.n_rows, m.n_cols};
  if (m.n_rows == 1) shape.erase(shape.begin());
  return {m.name, m.dtype, std::move(shape), {m.data, m.data + n}};
}

// Matrices that point at the codes of docs/formats/vq.md.
Matrix coded_vq(const Matrix& m, const std::string& module, const Tier& tier, int group,
                const Codebook& book, const std::byte* codes, const std::byte* scales) {
  return {.n_rows = m.n_rows,
          .n_cols = m.n_cols,
          .name = module,
          .codes = kernels::VqMatrix{.codes = codes,
                                     .scales = scales,
                                     .codebook = book.values.data(),
                                     .n_rows = m.n_rows,
                                     .n_cols = m.n_cols,
                                     .dim = tier.dim,
                                     .n_codes = tier.n_codes,
                                     .index_bits = tier.index_bits(),
                                     .n_books = 1,
                                     .group = group}};
}
Matrix coded_gptq(const Matrix& m, int bits, int group, const std::byte* values,
                  const std::byte* zeros, const std::byte* scales) {
  return {.n_rows = m.n_rows,
          .n_cols = m.n_cols,
          .name = module_of(m),
          .codes = kernels::ScaledMatrix{.kind = bits == 4 ? kernels::ScaledMatrix::Kind::kGptq4
                                                           : kernels::ScaledMatrix::Kind::kGptq8,
                                         .values = values,
                                         .scales = scales,
                                         .zeros = zeros,
                                         .n_rows = m.n_rows,
                                         .n_cols = m.n_cols,
                                         .group = group}};
}

int n_rows_of(const Rows& x, int width) {
  return static_cast<int>(x.size() / static_cast<std::size_t>(width));
}

}  // namespace

std::string expert_module(int layer, std::size_t expert, std::size_t projection) {
  return fmt::format("model.layers.{}.mlp.experts.{}.{}", layer, expert, kProjections[projection]);
}

GptqVqOptions vq_options(const Recipe& recipe, bool compensate, const Hessian& h, Stop* stop) {
  GptqVqOptions options;
  options.group = recipe.group;
  options.compensate = compensate;
  options.beam = recipe.beam;
  options.n_refits = recipe.n_refits;
  options.n_descents = recipe.n_descents;
  options.hessian = &h;
  options.stop = stop;
  return options;
}

Result<void> check_spine(const ModelWeights& weights, const Recipe& recipe) {
  const auto check = [](const Matrix& m, int bits) -> Result<void> {
    if (m.empty() || bits == 16) return {};
    return check_packable(m.n_rows, m.n_cols, bits, module_of(m));
  };
  for (const LayerWeights& w : weights.layers) {
    for (const Matrix* m : {&w.q_a, &w.q_b, &w.kv_b, &w.o})
      ASSAY_TRY_VOID(check(*m, recipe.attention_bits));
    ASSAY_TRY_VOID(check(w.kv_a, recipe.kv_a_bits));
    for (const Matrix* m : {&w.mlp.gate, &w.mlp.up, &w.mlp.down})
      ASSAY_TRY_VOID(
          check(*m, w.experts.empty() ? recipe.dense_mlp_bits : recipe.shared_expert_bits));
  }
  if (weights.lm_head.name == weights.embed.name) return {};  // tied, so it stays
  return check(weights.lm_head, recipe.lm_head_bits);
}

Result<void> LayerEncoder::encode_spine(Matrix& m, int bits, const Hessian& h, EncodedLayer& out) {
  if (bits == 16) {
    out.tensors.push_back(copy_of(m));
    return {};
  }
  ASSAY_TRY_VOID(stop_.check());
  const std::string module = module_of(m);
  const std::vector<float> w = to_floats(m);
  ASSAY_TRY(
      const HessianFactor factored,
      factor(h, recipe_.damping, module, &stop_,
             recipe_.spine_activation_order != 0 ? activation_order(h, 1) : std::vector<int>()));
  GptqScalarOptions options;
  options.bits = bits;
  options.group = recipe_.spine_group;
  options.stop = &stop_;
  ASSAY_TRY(const ScalarEncoding e,
            gptq_scalar(w.data(), m.n_rows, m.n_cols, factored, options, pool_, module));
  const int per_word = 32 / bits,
            n_groups = (m.n_cols + recipe_.spine_group - 1) / recipe_.spine_group;
  out.tensors.push_back(
      new_tensor(module + ".qweight", DType::kI32, {m.n_cols / per_word, m.n_rows}, e.qweight));
  const std::byte* values = out.tensors.back().bytes.data();
  out.tensors.push_back(
      new_tensor(module + ".qzeros", DType::kI32, {n_groups, m.n_rows / per_word}, e.qzeros));
  const std::byte* zeros = out.tensors.back().bytes.data();
  out.tensors.push_back(
      new_tensor(module + ".scales", DType::kF16, {n_groups, m.n_rows}, e.scales));
  const std::byte* scales = out.tensors.back().bytes.data();
  out.report[module] = {{"format", fmt::format("gptq {} bit", bits)},
                        {"n_samples", h.n_samples()},
                        {"damping_share", factored.damping_share()},
                        {"relative_error", e.relative_error}};
  m = coded_gptq(m, bits, recipe_.spine_group, values, zeros, scales);
  return {};
}

Result<void> LayerEncoder::encode_vq(Matrix& m, int tier_index, const Hessian& h,
                                     TierFactors& factors, bool compensate, int n_samples,
                                     EncodedLayer& out) {
  ASSAY_TRY_VOID(stop_.check());
  const Tier& tier = recipe_.tiers[static_cast<std::size_t>(tier_index)];
  const Codebook& book = codebooks_[static_cast<std::size_t>(tier_index)];
  const std::string module = m.name;
  const std::vector<float> w = to_floats(m);
  ASSAY_TRY(const HessianFactor* const factored, factors.of(tier.dim));
  ASSAY_TRY(const VqEncoding e, gptq_vq(w.data(), m.n_rows, m.n_cols, book, *factored,
                                        vq_options(recipe_, compensate, h, &stop_), pool_, module));
  const int n_sub = m.n_cols / tier.dim, n_groups = (m.n_cols + recipe_.group - 1) / recipe_.group;
  const std::vector<std::uint32_t> words =
      pack_indices(e.indices, m.n_rows, n_sub, tier.index_bits());
  out.tensors.push_back(new_tensor(module + ".vq_codes", DType::kI32,
                                   {m.n_rows, static_cast<std::int64_t>(words.size()) / m.n_rows},
                                   words));
  const std::byte* codes = out.tensors.back().bytes.data();
  out.tensors.push_back(
      new_tensor(module + ".vq_scales", DType::kF16, {m.n_rows, n_groups}, e.scales));
  const std::byte* scales = out.tensors.back().bytes.data();
  out.report[module] = {{"format", "vq"},
                        {"tier", tier.name},
                        {"bits", tier.bits()},
                        {"n_samples", n_samples},
                        {"damping_share", factored->damping_share()},
                        {"relative_error", e.relative_error}};
  m = coded_vq(m, module, tier, recipe_.group, book, codes, scales);
  return {};
}

Result<void> LayerEncoder::encode_attention(int layer, LayerWeights& w, const Rows& residual,
                                            EncodedLayer& out) {
  Hessian of_normed(config_.hidden), of_q(config_.q_lora), of_latent(config_.kv_lora),
      of_heads(config_.n_heads * config_.v_head);
  if (recipe_.attention_bits != 16 || recipe_.kv_a_bits != 16) {
    ASSAY_TRY_VOID(pass_.watch_attention(
        layer, w, residual, [&](std::string_view what, const Backend& b, Act act) {
          const auto add = [&](Hessian& h, const Rows& x) {  // stopped: the next matrix says so
            static_cast<void>(h.add(x.data(), n_rows_of(x, h.dim()), pool_, &stop_));
          };
          if (what == "input_norm") add(of_normed, b.read(act));
          if (what == "q_resid") add(of_q, b.read(act));
          // kv_b reads the normed latent, which a backend keeps only in its cache.
          if (what == "kv_a")
            add(of_latent, rms_normed(b.read(act), config_.kv_row(), config_.kv_lora, w.kv_a_norm,
                                      ModelConfig::kLoraRmsEps, &stop_));
          if (what == "attention") add(of_heads, b.read(act));
        }));
  }
  for (const auto& [matrix, hessian] : {std::pair{&w.q_a, &of_normed},
                                        {&w.kv_a, &of_normed},
                                        {&w.q_b, &of_q},
                                        {&w.kv_b, &of_latent},
                                        {&w.o, &of_heads}})
    ASSAY_TRY_VOID(encode_spine(
        *matrix, matrix == &w.kv_a ? recipe_.kv_a_bits : recipe_.attention_bits, *hessian, out));
  return {};
}

Result<void> LayerEncoder::encode_mlp(const Rows& x, MlpWeights& mlp, int bits, EncodedLayer& out) {
  Hessian of_x(mlp.gate.n_cols), of_hidden(mlp.down.n_cols);
  if (bits != 16) ASSAY_TRY_VOID(of_x.add(x.data(), n_rows_of(x, of_x.dim()), pool_, &stop_));
  ASSAY_TRY_VOID(encode_spine(mlp.gate, bits, of_x, out));
  ASSAY_TRY_VOID(encode_spine(mlp.up, bits, of_x, out));
  if (bits != 16) {
    const Rows hidden = mlp_hidden(mlp, x, pool_, &stop_);
    ASSAY_TRY_VOID(of_hidden.add(hidden.data(), n_rows_of(hidden, of_hidden.dim()), pool_, &stop_));
  }
  return encode_spine(mlp.down, bits, of_hidden, out);
}

Result<void> LayerEncoder::encode_experts(int layer, const MoeInputs& inputs, LayerWeights& w,
                                          EncodedLayer& out) {
  const ExpertHessians hessians(config_, recipe_, inputs, pool_, &stop_);
  for (std::size_t e = 0; e < w.experts.size(); ++e) {
    MlpWeights& expert = w.experts[e];
    const std::array<Matrix*, 3> projections = {&expert.gate, &expert.up, &expert.down};
    for (std::size_t p = 0; p < 3; ++p) projections[p]->name = expert_module(layer, e, p);
    const auto& tier = plan_.tier[static_cast<std::size_t>(layer)][e];
    const int n_tokens = hessians.n_tokens(e);

    ASSAY_TRY(const Hessian of_inputs, hessians.of_inputs(e));
    TierFactors of_both(of_inputs, recipe_, recipe_.compensate_gate_up, expert.gate.name, &stop_);
    for (const auto& [matrix, which] : {std::pair{&expert.gate, 0}, {&expert.up, 1}})
      ASSAY_TRY_VOID(encode_vq(*matrix, tier[static_cast<std::size_t>(which)], of_inputs, of_both,
                               recipe_.compensate_gate_up, n_tokens, out));

    // Down reads what the encoded gate and up make of the tokens.
    ASSAY_TRY(const Hessian of_hidden, hessians.of_hidden(e, expert));
    TierFactors of_down(of_hidden, recipe_, recipe_.compensate_down, expert.down.name, &stop_);
    ASSAY_TRY_VOID(encode_vq(expert.down, tier[2], of_hidden, of_down, recipe_.compensate_down,
                             n_tokens, out));
  }
  return {};
}

Result<EncodedLayer> LayerEncoder::encode(int layer, const LayerWeights& weights, Rows& residual) {
  EncodedLayer out;
  out.report = Json::object();
  LayerWeights w = weights;
  for (const Matrix* m :
       {&w.input_norm, &w.post_attention_norm, &w.q_a_norm, &w.kv_a_norm, &w.indexer.wq_b,
        &w.indexer.wk, &w.indexer.weights_proj, &w.indexer.k_norm_weight, &w.indexer.k_norm_bias,
        &w.router, &w.router_bias})
    if (!m->empty()) out.tensors.push_back(copy_of(*m));

  ASSAY_TRY_VOID(encode_attention(layer, w, residual, out));
  ASSAY_TRY_VOID(pass_.attention(layer, w, residual, {}));
  if (config_.is_dense_layer(layer)) {
    ASSAY_TRY(const Rows x, pass_.mlp_inputs(layer, w, residual));
    ASSAY_TRY_VOID(encode_mlp(x, w.mlp, recipe_.dense_mlp_bits, out));
  } else {
    ASSAY_TRY(const MoeInputs inputs, pass_.moe_inputs(layer, w, residual));
    ASSAY_TRY_VOID(encode_mlp(inputs.x, w.mlp, recipe_.shared_expert_bits, out));
    ASSAY_TRY_VOID(encode_experts(layer, inputs, w, out));
  }
  ASSAY_TRY_VOID(pass_.mlp(layer, w, residual));
  return out;
}

Result<EncodedLayer> LayerEncoder::encode_ends(const ModelWeights& weights, const Rows& residual) {
  EncodedLayer out;
  out.report = Json::object();
  out.tensors.push_back(copy_of(weights.embed));
  out.tensors.push_back(copy_of(weights.final_norm));
  if (weights.lm_head.name == weights.embed.name) return out;  // tied
  Matrix head = weights.lm_head;
  Hessian h(config_.hidden);
  if (recipe_.lm_head_bits != 16) {
    const Rows x = rms_normed(residual, config_.hidden, config_.hidden, weights.final_norm,
                              config_.rms_eps, &stop_);
    ASSAY_TRY_VOID(h.add(x.data(), n_rows_of(x, config_.hidden), pool_, &stop_));
  }
  ASSAY_TRY_VOID(encode_spine(head, recipe_.lm_head_bits, h, out));
  return out;
}

Result<LayerWeights> coded_layer(int layer, const LayerWeights& weights,
                                 const SafetensorsFile& file, const Plan& plan,
                                 const std::vector<Codebook>& codebooks, const Recipe& recipe) {
  LayerWeights w = weights;
  std::map<std::string, const TensorView*> by_name;
  for (const TensorView& t : file.tensors()) by_name[t.name] = &t;
  std::string missing;
  const auto at = [&](const std::string& name) -> const std::byte* {
    const auto it = by_name.find(name);
    if (it != by_name.end()) return it->second->bytes.data();
    missing = name;
    return nullptr;
  };
  const auto spine = [&](Matrix& m, int bits) {
    const std::string module = module_of(m);
    if (m.empty() || bits == 16) return;
    m = coded_gptq(m, bits, recipe.spine_group, at(module + ".qweight"), at(module + ".qzeros"),
                   at(module + ".scales"));
  };
  for (Matrix* m : {&w.q_a, &w.q_b, &w.kv_b, &w.o}) spine(*m, recipe.attention_bits);
  spine(w.kv_a, recipe.kv_a_bits);
  for (Matrix* m : {&w.mlp.gate, &w.mlp.up, &w.mlp.down})
    spine(*m, w.experts.empty() ? recipe.dense_mlp_bits : recipe.shared_expert_bits);
  for (std::size_t e = 0; e < w.experts.size(); ++e) {
    const std::array<Matrix*, 3> projections = {&w.experts[e].gate, &w.experts[e].up,
                                                &w.experts[e].down};
    for (std::size_t p = 0; p < 3; ++p) {
      const auto tier = static_cast<std::size_t>(plan.tier[static_cast<std::size_t>(layer)][e][p]);
      const std::string module = expert_module(layer, e, p);
      *projections[p] =
          coded_vq(*projections[p], module, recipe.tiers[tier], recipe.group, codebooks[tier],
                   at(module + ".vq_codes"), at(module + ".vq_scales"));
    }
  }
  if (!missing.empty())
    return fail("{}: {} is missing. Delete this file and run again", file.path().string(), missing);
  return w;
}

}  // namespace assay::engine
