#include "engine/quantize/plan.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "engine/backend/matrix_view.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/quantize/allocate.h"
#include "engine/quantize/binary16.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

struct Module {
  const Matrix* matrix;
  const ProjectionStats* stats;
};

std::vector<Module> modules_of(const ModelWeights& weights, const ModelStats& stats) {
  std::vector<Module> out;
  for (std::size_t l = 0; l < stats.size(); ++l)
    for (std::size_t e = 0; e < stats[l].size(); ++e) {
      const MlpWeights& w = weights.layers[l].experts[e];
      const ExpertStats& s = stats[l][e];
      out.insert(out.end(), {{&w.gate, &s.gate}, {&w.up, &s.up}, {&w.down, &s.down}});
    }
  return out;
}

struct Points {
  std::vector<float> values, weights;  // (n, dim)
};

// Every stride-th sub-vector of all modules, divided by its scale, with what it counts for: what an
// error in it weighs, to the recipe's codebook_power.
Points sample_points(const std::vector<Module>& modules, int dim, std::int64_t n_wanted,
                     const Recipe& recipe) {
  const int group = recipe.group;
  std::int64_t n_all = 0;
  for (const Module& m : modules) n_all += std::int64_t{m.matrix->n_rows} * m.matrix->n_cols / dim;
  const double stride = std::max(1.0, static_cast<double>(n_all) / static_cast<double>(n_wanted));
  Points out;
  std::int64_t base = 0, n_taken = 0;
  for (const Module& m : modules) {
    const int n_cols = m.matrix->n_cols, per_row = n_cols / dim;
    const std::int64_t n = std::int64_t{m.matrix->n_rows} * per_row;
    std::vector<float> w;
    for (;; ++n_taken) {
      const auto at = static_cast<std::int64_t>(static_cast<double>(n_taken) * stride) - base;
      if (at >= n) break;
      if (w.empty()) w = to_floats(*m.matrix);
      const auto row = static_cast<int>(at / per_row), col = static_cast<int>(at % per_row) * dim;
      const int first = col / group * group;
      const float* values = &w[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols)];
      const float scale = initial_scale(values + first, std::min(group, n_cols - first));
      if (scale == 0) continue;
      for (int i = 0; i < dim; ++i) {
        out.values.push_back(values[col + i] / scale);
        out.weights.push_back(
            scale * scale * m.stats->row_weight[static_cast<std::size_t>(row)] *
            m.stats->col_energy[static_cast<std::size_t>(col) + static_cast<std::size_t>(i)]);
      }
    }
    base += n;
  }
  double mean = 0;
  for (const float w : out.weights)
    mean += static_cast<double>(w) / static_cast<double>(out.weights.size());
  for (float& w : out.weights) {  // an unseen expert's weights still count a little
    w = mean > 0 ? std::max(1e-6f, static_cast<float>(static_cast<double>(w) / mean)) : 1.0f;
    if (recipe.codebook_power != 1)
      w = static_cast<float>(std::pow(static_cast<double>(w), recipe.codebook_power));
  }
  return out;
}

// What one matrix adds to its layer's output: the error if it were zero.
double output_energy(const Module& m) {
  const std::vector<float> w = to_floats(*m.matrix);
  const auto n_cols = static_cast<std::size_t>(m.matrix->n_cols);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i)
    sum += static_cast<double>(w[i]) * static_cast<double>(w[i]) *
           static_cast<double>(m.stats->row_weight[i / n_cols]) *
           static_cast<double>(m.stats->col_energy[i % n_cols]);
  return std::max(sum, 1e-12);  // an expert that no token saw
}

// Predicted output error of one matrix with its nearest codewords.
double nearest_error(const Module& m, const Codebook& book, int group, ThreadPool& pool) {
  const int n_rows = m.matrix->n_rows, n_cols = m.matrix->n_cols, dim = book.dim;
  const std::vector<float> w = to_floats(*m.matrix);
  const int n_sub = n_cols / dim, n_lanes = (n_sub + kLaneStep - 1) / kLaneStep * kLaneStep;
  const auto target = kernels::usable_cpu_targets().front();
  std::vector<double> row_error(static_cast<std::size_t>(n_rows));
  pool.parallel_for(n_rows, [&](int r) {
    const auto lanes = static_cast<std::size_t>(n_lanes);
    std::vector<float> weight(static_cast<std::size_t>(dim) * lanes, 0.0f), v(weight.size(), 0.0f);
    std::vector<float> score(lanes), index(lanes);
    const float* row = &w[static_cast<std::size_t>(r) * static_cast<std::size_t>(n_cols)];
    double base = 0;
    for (int first = 0; first < n_cols; first += group) {
      const int end = std::min(n_cols, first + group);
      const float scale = initial_scale(row + first, end - first);
      if (scale == 0) continue;
      for (int c = first; c < end; ++c) {
        const std::size_t at =
            static_cast<std::size_t>(c % dim) * lanes + static_cast<std::size_t>(c / dim);
        const float x = row[c] / scale;
        weight[at] = scale * scale * m.stats->col_energy[static_cast<std::size_t>(c)];
        v[at] = -2 * weight[at] * x;
        base += static_cast<double>(weight[at]) * static_cast<double>(x) * static_cast<double>(x);
      }
    }
    nearest_weighted(target, {.w = weight.data(),
                              .v = v.data(),
                              .codebook = book.values.data(),
                              .score = score.data(),
                              .index = index.data(),
                              .dim = dim,
                              .n_codes = book.n_codes,
                              .n_lanes = n_lanes});
    double error = base;
    for (int j = 0; j < n_sub; ++j)
      error += static_cast<double>(score[static_cast<std::size_t>(j)]);
    row_error[static_cast<std::size_t>(r)] =
        std::max(0.0, error) *
        static_cast<double>(m.stats->row_weight[static_cast<std::size_t>(r)]);
  });
  double total = 0;
  for (const double e : row_error) total += e;
  return total;
}

// A value for every projection of every expert of every layer, and no more.
Result<void> check_counts(const Json& values, const ModelStats& stats, std::string_view file) {
  const auto check = [&](const Json& list, std::size_t expected, std::string_view what) {
    if (list.is_array() && list.size() == expected) return Result<void>();
    return Result<void>(fail("{}: {} {}, expected {}. Delete the folder and begin again", file,
                             list.is_array() ? list.size() : 0, what, expected));
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

// A few codewords need no fewer sub-vectors than many: rows count so unequally that some hundred
// are too few to tell where two of them belong.
constexpr int kLeastSampledCodes = 256;

}  // namespace

Result<Plan> make_plan(const ModelWeights& weights, const ModelStats& stats, const Recipe& recipe,
                       ThreadPool& pool, const PlanHooks& hooks) {
  const std::vector<Module> modules = modules_of(weights, stats);
  const auto progress = [&](std::string_view what, int done, int total) {
    if (hooks.on_progress) hooks.on_progress(what, done, total);
  };
  const auto go_on = [&] { return hooks.stop == nullptr ? Result<void>() : hooks.stop->check(); };
  if (modules.empty()) return fail("the model has no routed experts: there is nothing to quantise");
  for (const Module& m : modules)
    for (const Tier& t : recipe.tiers)
      if (m.matrix->n_cols % t.dim != 0)
        return fail("{}: {} columns cannot be cut into sub-vectors of d = {} (tier {})",
                    m.matrix->name, m.matrix->n_cols, t.dim, t.name);

  Plan plan;
  const int n_tiers = static_cast<int>(recipe.tiers.size());
  for (int t = 0; t < n_tiers; ++t) {
    const Tier& tier = recipe.tiers[static_cast<std::size_t>(t)];
    progress("codebooks", t, n_tiers);
    ASSAY_TRY_VOID(go_on());
    const Points points = sample_points(
        modules, tier.dim,
        std::int64_t{recipe.points_per_code} * std::max(tier.n_codes, kLeastSampledCodes), recipe);
    KMeansOptions options;
    options.n_codes = tier.n_codes;
    options.seed = recipe.seed;
    ASSAY_TRY(KMeansResult fitted,
              fit_codebook(points.values.data(), points.weights.data(),
                           static_cast<std::int64_t>(points.values.size()) / tier.dim, tier.dim,
                           options, pool));
    plan.codebooks.push_back(std::move(fitted.codebook));
  }

  std::vector<LayerErrors> errors;
  std::size_t n_asked = 0;
  for (const auto& layer : stats) {
    errors.emplace_back(layer.size() * kProjections.size());
    for (ModuleErrors& of : errors.back()) {
      const Module& module = modules[n_asked];
      if (n_asked % 16 == 0)
        progress("tiers", static_cast<int>(n_asked), static_cast<int>(modules.size()));
      ++n_asked;
      ASSAY_TRY_VOID(go_on());
      of.energy = output_energy(module);
      for (const Codebook& book : plan.codebooks)
        of.nearest.push_back(nearest_error(module, book, recipe.group, pool));
    }
  }
  if (hooks.measure_kept) {
    ASSAY_TRY(plan.kept, hooks.measure_kept(plan.codebooks, errors));
  }

  std::vector<AllocationItem> items;
  double n_weights = 0;
  for (std::size_t l = 0; l < errors.size(); ++l)
    for (std::size_t i = 0; i < errors[l].size(); ++i) {
      const Matrix& m = *modules[items.size()].matrix;
      const double n = static_cast<double>(m.n_rows) * m.n_cols;
      n_weights += n;
      AllocationItem& item = items.emplace_back();
      for (std::size_t t = 0; t < recipe.tiers.size(); ++t) {
        const double importance = kept_of(recipe, plan.kept, l, i % kProjections.size(), t) *
                                  std::pow(errors[l][i].energy, -recipe.temper);
        item.push_back({n * recipe.tiers[t].bits(), importance * errors[l][i].nearest[t]});
      }
    }
  ASSAY_TRY(const Allocation choice, allocate(items, recipe.bits * n_weights));
  plan.code_bits = choice.total_cost / n_weights;
  plan.predicted_error = choice.total_error;
  plan.lower_bound = choice.lower_bound;
  std::size_t next = 0;
  for (std::size_t l = 0; l < stats.size(); ++l) {
    plan.tier.emplace_back(stats[l].size());
    plan.error.emplace_back(stats[l].size());
    for (std::size_t e = 0; e < stats[l].size(); ++e)
      for (std::size_t p = 0; p < kProjections.size(); ++p, ++next) {
        const int tier = plan.tier.back()[e][p] = choice.option[next];
        const ModuleErrors& of = errors[l][e * kProjections.size() + p];
        plan.error.back()[e][p] = of.nearest[static_cast<std::size_t>(tier)] / of.energy;
      }
  }
  return plan;
}

Result<void> write_codebooks(const std::filesystem::path& file,
                             const std::vector<Codebook>& codebooks,
                             const std::vector<Tier>& tiers) {
  std::vector<std::vector<std::uint16_t>> halves;
  std::vector<TensorView> tensors;
  for (const Codebook& book : codebooks) {
    std::vector<std::uint16_t>& out = halves.emplace_back();
    for (const float v : book.values) out.push_back(f32_to_f16(v));
  }
  for (std::size_t i = 0; i < codebooks.size(); ++i)
    tensors.push_back({"cb" + tiers[i].name,
                       DType::kF16,
                       {codebooks[i].n_codes, codebooks[i].dim},
                       std::as_bytes(std::span(halves[i]))});
  return write_safetensors(file, std::move(tensors));
}

Result<std::vector<Codebook>> read_codebooks(const std::filesystem::path& path,
                                             const std::vector<Tier>& tiers) {
  ASSAY_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  std::vector<Codebook> out;
  for (const Tier& tier : tiers) {
    const std::string name = "cb" + tier.name;
    const auto t = std::find_if(file.tensors().begin(), file.tensors().end(),
                                [&](const TensorView& view) { return view.name == name; });
    if (t == file.tensors().end() || t->dtype != DType::kF16 ||
        t->shape != std::vector<std::int64_t>{tier.n_codes, tier.dim})
      return fail("{}: expected {} as F16 [{}, {}]. Delete the folder and begin again",
                  path.string(), name, tier.n_codes, tier.dim);
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
  ASSAY_TRY_VOID(write_codebooks(folder / "codebooks.safetensors", plan.codebooks, recipe.tiers));
  Json json = {{"tier", plan.tier},
               {"error", plan.error},
               {"code_bits", plan.code_bits},
               {"predicted_error", plan.predicted_error},
               {"lower_bound", plan.lower_bound}};
  if (!plan.kept.share.empty()) json["kept"] = {{"share", plan.kept.share}, {"all", plan.kept.all}};
  return write_file_atomic(folder / "plan.json", json.dump() + "\n");
}

Result<Plan> read_plan(const std::filesystem::path& folder, const Recipe& recipe,
                       const ModelStats& stats) {
  ASSAY_TRY(const Json json, read_json(folder / "plan.json"));
  Plan plan;
  try {
    ASSAY_TRY_VOID(check_counts(json.at("tier"), stats, (folder / "plan.json").string()));
    ASSAY_TRY_VOID(check_counts(json.at("error"), stats, (folder / "plan.json").string()));
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
    return fail("{}: {}. Delete the folder and begin again", (folder / "plan.json").string(),
                e.what());
  }
  for (const auto& layer : plan.tier)
    for (const auto& expert : layer)
      for (const int tier : expert)
        if (tier < 0 || tier >= static_cast<int>(recipe.tiers.size()))
          return fail("{}: tier {}, expected 0 to {}. Delete the folder and begin again",
                      (folder / "plan.json").string(), tier, recipe.tiers.size() - 1);
  ASSAY_TRY(plan.codebooks, read_codebooks(folder / "codebooks.safetensors", recipe.tiers));
  return plan;
}

}  // namespace assay::engine
