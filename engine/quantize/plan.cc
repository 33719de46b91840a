#include "engine/quantize/plan.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/quantize/allocate.h"
#include "engine/quantize/binary16.h"

namespace assay::engine {
namespace {

// A value for every projection of every expert of every layer, and no more.
Result<void> check_counts(const Json& values, const ModelStats& stats,
                          const std::filesystem::path& file) {
  const auto check = [&](const Json& list, std::size_t expected, std::string_view what) {
    if (list.is_array() && list.size() == expected) return Result<void>();
    return Result<void>(damaged(
        file,
        fmt::format("{} {}, expected {}", list.is_array() ? list.size() : 0, what, expected)));
  };
  ASSAY_TRY_VOID(check(values, stats.size(), "layers"));
  for (std::size_t l = 0; l < stats.size(); ++l) {
    ASSAY_TRY_VOID(check(values[l], stats[l].size(), fmt::format("experts in layer {}", l)));
    for (std::size_t e = 0; e < stats[l].size(); ++e)
      ASSAY_TRY_VOID(check(values[l][e], kProjections.size(),
                           fmt::format("projections of layer {}, expert {}", l, e)));
  }
  return {};
}

double kept_of(const Recipe& recipe, const Kept& kept, std::size_t layer, std::size_t projection,
               std::size_t tier) {
  if (!kept.share.empty()) return kept.share[layer][projection][tier];
  return projection == 0 ? recipe.kept_gate : projection == 1 ? recipe.kept_up : recipe.kept_down;
}

}  // namespace

std::vector<Module> modules_of(const ModelWeights& weights, const ModelStats& stats,
                               std::size_t layer) {
  std::vector<Module> out;
  for (std::size_t e = 0; e < stats[layer].size(); ++e) {
    const MlpWeights& w = weights.layers[layer].experts[e];
    const ExpertStats& s = stats[layer][e];
    out.insert(out.end(), {{&w.gate, &s.gate}, {&w.up, &s.up}, {&w.down, &s.down}});
  }
  return out;
}

Result<Plan> choose_tiers(const ModelWeights& weights, const ModelStats& stats,
                          const std::vector<LayerErrors>& errors, const Kept& kept,
                          const Recipe& recipe) {
  std::vector<AllocationItem> items;
  double n_weights = 0;
  for (std::size_t l = 0; l < stats.size(); ++l) {
    const std::vector<Module> modules = modules_of(weights, stats, l);
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const auto n = static_cast<double>(modules[i].matrix->n_rows) * modules[i].matrix->n_cols;
      n_weights += n;
      AllocationItem& item = items.emplace_back();
      for (std::size_t t = 0; t < recipe.tiers.size(); ++t) {
        const double importance = kept_of(recipe, kept, l, i % kProjections.size(), t) *
                                  std::pow(errors[l][i].energy, -recipe.temper);
        item.push_back({n * recipe.tiers[t].bits(), importance * errors[l][i].nearest[t]});
      }
    }
  }
  ASSAY_TRY(const Allocation choice, allocate(items, recipe.bits * n_weights));
  Plan plan;
  plan.kept = kept;
  plan.code_bits = choice.total_cost / n_weights;
  plan.predicted_error = choice.total_error;
  plan.lower_bound = choice.lower_bound;
  std::size_t next = 0;
  for (std::size_t l = 0; l < stats.size(); ++l) {
    plan.tier.emplace_back(stats[l].size());
    plan.error.emplace_back(stats[l].size());
    for (std::size_t i = 0; i < errors[l].size(); ++i, ++next) {
      const std::size_t e = i / kProjections.size(), p = i % kProjections.size();
      const int tier = plan.tier.back()[e][p] = choice.option[next];
      plan.error.back()[e][p] =
          errors[l][i].nearest[static_cast<std::size_t>(tier)] / errors[l][i].energy;
    }
  }
  return plan;
}

Result<Plan> make_plan(const ModelWeights& weights, const ModelStats& stats, const Recipe& recipe,
                       ThreadPool& pool, const PlanHooks& hooks) {
  ASSAY_TRY(std::vector<Codebook> codebooks, fit_codebooks(weights, stats, recipe, pool, hooks));
  ASSAY_TRY(const std::vector<LayerErrors> errors,
            predict_errors(weights, stats, codebooks, recipe, pool, hooks));
  Kept kept;
  if (hooks.measure_kept) {
    ASSAY_TRY(kept, hooks.measure_kept(codebooks, errors));
  }
  ASSAY_TRY(Plan plan, choose_tiers(weights, stats, errors, kept, recipe));
  plan.codebooks = std::move(codebooks);
  return plan;
}

std::vector<NewTensor> codebook_tensors(const std::vector<Codebook>& codebooks,
                                        const std::vector<Tier>& tiers) {
  std::vector<NewTensor> out;
  for (std::size_t i = 0; i < codebooks.size(); ++i) {
    std::vector<std::uint16_t> halves;
    for (const float v : codebooks[i].values) halves.push_back(f32_to_f16(v));
    out.push_back(new_tensor("cb" + tiers[i].name, DType::kF16,
                             {codebooks[i].n_codes, codebooks[i].dim}, halves));
  }
  return out;
}

Result<std::vector<Codebook>> read_codebooks(const std::filesystem::path& path,
                                             const std::vector<Tier>& tiers) {
  ASSAY_TRY(const SafetensorsFile file, open_sealed(path));
  std::vector<Codebook> out;
  for (const Tier& tier : tiers) {
    const std::string name = "cb" + tier.name;
    const auto t = std::find_if(file.tensors().begin(), file.tensors().end(),
                                [&](const TensorView& view) { return view.name == name; });
    if (t == file.tensors().end() || t->dtype != DType::kF16 ||
        t->shape != std::vector<std::int64_t>{tier.n_codes, tier.dim})
      return damaged(path,
                     fmt::format("expected {} as F16 [{}, {}]", name, tier.n_codes, tier.dim));
    Codebook book{.dim = tier.dim, .n_codes = tier.n_codes, .values = {}};
    const kernels::WeightMatrix w{t->bytes.data(), kernels::WeightType::kF16, tier.n_codes,
                                  tier.dim};
    for (std::int64_t i = 0; i < t->n_elements(); ++i)
      book.values.push_back(kernels::weight_at(w, i));
    out.push_back(std::move(book));
  }
  return out;
}

Result<void> write_plan(const std::filesystem::path& folder, const Plan& plan,
                        const Recipe& recipe) {
  ASSAY_TRY_VOID(write_sealed(folder / "codebooks.safetensors",
                              codebook_tensors(plan.codebooks, recipe.tiers)));
  Json json = {{"tier", plan.tier},
               {"error", plan.error},
               {"code_bits", plan.code_bits},
               {"predicted_error", plan.predicted_error},
               {"lower_bound", plan.lower_bound}};
  if (!plan.kept.share.empty()) json["kept"] = {{"share", plan.kept.share}, {"all", plan.kept.all}};
  return write_sealed(folder / "plan.json", json);
}

Result<Plan> read_plan(const std::filesystem::path& folder, const Recipe& recipe,
                       const ModelStats& stats) {
  ASSAY_TRY(const Json json, read_sealed(folder / "plan.json"));
  Plan plan;
  try {
    ASSAY_TRY_VOID(check_counts(json.at("tier"), stats, folder / "plan.json"));
    ASSAY_TRY_VOID(check_counts(json.at("error"), stats, folder / "plan.json"));
    json.at("tier").get_to(plan.tier);
    json.at("error").get_to(plan.error);
    json.at("code_bits").get_to(plan.code_bits);
    json.at("predicted_error").get_to(plan.predicted_error);
    json.at("lower_bound").get_to(plan.lower_bound);
    if (recipe.kept_sample > 0) {
      json.at("kept").at("share").get_to(plan.kept.share);
      json.at("kept").at("all").get_to(plan.kept.all);
    }
  } catch (const Json::exception& e) {
    return damaged(folder / "plan.json", e.what());
  }
  for (const auto& layer : plan.tier)
    for (const auto& expert : layer)
      for (const int tier : expert)
        if (tier < 0 || tier >= static_cast<int>(recipe.tiers.size()))
          return damaged(folder / "plan.json",
                         fmt::format("tier {}, expected 0 to {}", tier, recipe.tiers.size() - 1));
  ASSAY_TRY(plan.codebooks, read_codebooks(folder / "codebooks.safetensors", recipe.tiers));
  return plan;
}

}  // namespace assay::engine
