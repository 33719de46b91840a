#include "engine/quantize/kept_sample.h"

#include <algorithm>

#include "base/check.h"
#include "engine/backend/matrix_view.h"
#include "engine/checkpoint/unfinished.h"
#include "engine/quantize/encode_layer.h"
#include "engine/quantize/expert_hessians.h"
#include "engine/quantize/gptq_vq.h"
#include "engine/quantize/sealed_file.h"

namespace assay::engine {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

std::filesystem::path file_of(const State& state, int layer) {
  return state.folder() / layer_kept_name(layer);
}

// One expert in every tier. Down's inputs are what its own bf16 gate and up make, in all tiers.
Result<Kept::OfLayer> encode_expert(const KeptSampleInput& in, int layer, std::size_t expert,
                                    const ExpertHessians& hessians,
                                    const std::vector<Codebook>& codebooks) {
  const MlpWeights& w = in.weights.layers[size(layer)].experts[expert];
  const auto module = [&](std::size_t p) { return expert_module(layer, expert, p); };
  ASSAY_TRY(const Hessian of_inputs, hessians.of_inputs(expert));
  TierFactors of_both(of_inputs, in.recipe, in.recipe.compensate_gate_up, module(0), &in.stop);
  ASSAY_TRY(const Hessian of_hidden, hessians.of_hidden(expert, w));
  TierFactors of_down(of_hidden, in.recipe, in.recipe.compensate_down, module(2), &in.stop);
  const std::array<const Matrix*, 3> matrices = {&w.gate, &w.up, &w.down};
  Kept::OfLayer error;
  for (std::size_t p = 0; p < matrices.size(); ++p) {
    const Matrix& m = *matrices[p];
    const std::vector<float> values = to_floats(m);
    const GptqVqOptions options =
        p == 2 ? vq_options(in.recipe, in.recipe.compensate_down, of_hidden, &in.stop)
               : vq_options(in.recipe, in.recipe.compensate_gate_up, of_inputs, &in.stop);
    for (const Codebook& book : codebooks) {
      ASSAY_TRY_VOID(in.stop.check());
      ASSAY_TRY(const HessianFactor* const factored, (p == 2 ? of_down : of_both).of(book.dim));
      ASSAY_TRY(const VqEncoding e, gptq_vq(values.data(), m.n_rows, m.n_cols, book, *factored,
                                            options, in.pool, module(p)));
      error[p].push_back(e.relative_error);
    }
  }
  return error;
}

Result<void> encode_sample(const KeptSampleInput& in, int layer, const MoeInputs& inputs,
                           const std::vector<Codebook>& codebooks) {
  SampledLayer out{sampled_experts(in.stats[size(layer)], in.recipe.kept_sample), {}};
  CHECK(!out.experts.empty()) << "every token goes to some expert of layer " << layer;
  const ExpertHessians hessians(in.config, in.recipe, inputs, in.pool, &in.stop);
  for (const int e : out.experts) {
    ASSAY_TRY(Kept::OfLayer error, encode_expert(in, layer, size(e), hessians, codebooks));
    out.error.push_back(std::move(error));
  }
  const Json json = {{"experts", out.experts}, {"error", out.error}};
  return write_sealed(file_of(in.state, layer), json);
}

Result<SampledLayer> load_sample(const KeptSampleInput& in, int layer) {
  const std::filesystem::path file = file_of(in.state, layer);
  ASSAY_TRY(const Json json, read_sealed(file));
  SampledLayer out;
  try {
    json.at("experts").get_to(out.experts);
    json.at("error").get_to(out.error);
  } catch (const Json::exception& e) {
    return damaged(file, e.what());
  }
  bool fits = out.experts == sampled_experts(in.stats[size(layer)], in.recipe.kept_sample) &&
              out.error.size() == out.experts.size();
  for (const Kept::OfLayer& error : out.error)
    for (const std::vector<double>& of_tiers : error)
      fits = fits && of_tiers.size() == in.recipe.tiers.size();
  if (!fits)
    return damaged(file, fmt::format("is not of {} experts in {} tiers of this calibration set",
                                     in.recipe.kept_sample, in.recipe.tiers.size()));
  return out;
}

// Σ measured and Σ predicted, of one projection in one tier.
struct Sums {
  double measured = 0, predicted = 0;
  double ratio() const { return predicted > 0 ? measured / predicted : 1; }
};
using TierSums = std::array<std::vector<Sums>, 3>;  // by projection and tier

Kept::OfLayer ratios(const TierSums& sums) {
  Kept::OfLayer out;
  for (std::size_t p = 0; p < out.size(); ++p)
    for (const Sums& s : sums[p]) out[p].push_back(s.ratio());
  return out;
}

void add(const SampledLayer& layer, const LayerErrors& predicted, TierSums& sums) {
  for (std::size_t i = 0; i < layer.experts.size(); ++i)
    for (std::size_t p = 0; p < sums.size(); ++p) {
      const ModuleErrors& of = predicted[size(layer.experts[i]) * sums.size() + p];
      sums[p].resize(of.nearest.size());
      for (std::size_t t = 0; t < of.nearest.size(); ++t) {
        sums[p][t].measured += layer.error[i][p][t];
        sums[p][t].predicted += of.nearest[t] / of.energy;
      }
    }
}

Json json_of(const Kept::OfLayer& kept, const std::vector<Tier>& tiers) {
  Json out = Json::object();
  for (std::size_t p = 0; p < kept.size(); ++p)
    for (std::size_t t = 0; t < kept[p].size(); ++t)
      out[kProjections[p]][tiers[t].name] = kept[p][t];
  return out;
}

}  // namespace

std::vector<int> sampled_experts(const std::vector<ExpertStats>& stats, int n_wanted) {
  std::vector<int> seen;
  for (std::size_t e = 0; e < stats.size(); ++e)
    if (stats[e].n_tokens > 0) seen.push_back(static_cast<int>(e));
  std::stable_sort(seen.begin(), seen.end(),
                   [&](int a, int b) { return stats[size(a)].n_tokens < stats[size(b)].n_tokens; });
  const std::size_t n = std::min(size(n_wanted), seen.size());
  std::vector<int> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(seen[(2 * i + 1) * seen.size() / (2 * n)]);
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::vector<SampledLayer>> sample_kept(const KeptSampleInput& in,
                                              const std::vector<Codebook>& codebooks) {
  const int n_layers = in.config.n_layers;
  std::error_code ignored;
  int n_done = 0;  // layers that an earlier run has finished
  while (n_done < n_layers && (in.config.is_dense_layer(n_done) ||
                               std::filesystem::exists(file_of(in.state, n_done), ignored)))
    ++n_done;
  Rows residual;
  if (n_done < n_layers) {
    ASSAY_TRY(residual, in.embedded());
  }
  for (int l = 0; l < n_layers && n_done < n_layers; ++l) {
    in.on_progress(l, n_layers);
    const LayerWeights& w = in.weights.layers[size(l)];
    ASSAY_TRY_VOID(in.pass.attention(l, w, residual, {}));
    if (l >= n_done && !in.config.is_dense_layer(l)) {
      ASSAY_TRY(const MoeInputs inputs, in.pass.moe_inputs(l, w, residual));
      ASSAY_TRY_VOID(encode_sample(in, l, inputs, codebooks));
    }
    if (l + 1 < n_layers) ASSAY_TRY_VOID(in.pass.mlp(l, w, residual));
    in.on_layer(l);
  }
  std::vector<SampledLayer> out(size(n_layers));
  for (int l = 0; l < n_layers; ++l)
    if (!in.config.is_dense_layer(l)) {
      ASSAY_TRY(out[size(l)], load_sample(in, l));
    }
  return out;
}

Kept kept_of_sample(const std::vector<SampledLayer>& sample,
                    const std::vector<LayerErrors>& predicted) {
  TierSums all;
  for (std::size_t l = 0; l < sample.size(); ++l) add(sample[l], predicted[l], all);
  Kept kept{.share = {}, .all = ratios(all)};
  for (std::size_t l = 0; l < sample.size(); ++l) {
    TierSums of_layer;
    add(sample[l], predicted[l], of_layer);
    kept.share.push_back(ratios(of_layer));
  }
  return kept;
}

Json kept_json(const Kept& kept, const std::vector<Tier>& tiers) {
  Json layers = Json::array();
  for (const Kept::OfLayer& of : kept.share) layers.push_back(json_of(of, tiers));
  return {{"all", json_of(kept.all, tiers)}, {"layers", layers}};
}

}  // namespace assay::engine
