// The plan's first step: a codebook for every tier, from a sample of all experts' weights.
#include <algorithm>
#include <cmath>

#include "engine/backend/matrix_view.h"
#include "engine/quantize/plan.h"
#include "engine/quantize/state.h"

namespace assay::engine {
namespace {

constexpr std::size_t kModulesPerProgress = 64;

struct Points {
  std::vector<float> values, weights;  // (n, dim)
};

// Every stride-th sub-vector of all modules, divided by its scale, with what it counts for: what an
// error in it weighs, to the recipe's codebook_power.
Result<Points> sample_points(const std::vector<Module>& modules, int dim, std::int64_t n_wanted,
                             const Recipe& recipe, const PlanHooks& hooks, const std::string& of) {
  const int group = recipe.group;
  std::int64_t n_all = 0;
  for (const Module& m : modules) n_all += std::int64_t{m.matrix->n_rows} * m.matrix->n_cols / dim;
  const double stride = std::max(1.0, static_cast<double>(n_all) / static_cast<double>(n_wanted));
  Points out;
  std::int64_t base = 0, n_taken = 0;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    if (i % kModulesPerProgress == 0)
      hooks.show(of + ", sub-vectors of module", static_cast<int>(i),
                 static_cast<int>(modules.size()));
    ASSAY_TRY_VOID(go_on(hooks.stop));
    const Module& m = modules[i];
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
      for (int j = 0; j < dim; ++j) {
        out.values.push_back(values[col + j] / scale);
        out.weights.push_back(
            scale * scale * m.stats->row_weight[static_cast<std::size_t>(row)] *
            m.stats->col_energy[static_cast<std::size_t>(col) + static_cast<std::size_t>(j)]);
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

// A few codewords need no fewer sub-vectors than many: rows count so unequally that some hundred
// are too few to tell where two of them belong.
constexpr int kLeastSampledCodes = 256;

Result<Codebook> fit_tier(const std::vector<Module>& modules, const Tier& tier,
                          const Recipe& recipe, ThreadPool& pool, const PlanHooks& hooks) {
  const std::string of = fmt::format("codebook of tier {}", tier.name);
  ASSAY_TRY(const Points points, sample_points(modules, tier.dim,
                                               std::int64_t{recipe.points_per_code} *
                                                   std::max(tier.n_codes, kLeastSampledCodes),
                                               recipe, hooks, of));
  KMeansOptions options;
  options.n_codes = tier.n_codes;
  options.seed = recipe.seed;
  const KMeansHooks inner{[&](std::string_view what, int done, int total) {
                            hooks.show(fmt::format("{}, {}", of, what), done, total);
                          },
                          hooks.stop};
  ASSAY_TRY(KMeansResult fitted,
            fit_codebook(points.values.data(), points.weights.data(),
                         static_cast<std::int64_t>(points.values.size()) / tier.dim, tier.dim,
                         options, pool, inner));
  return std::move(fitted.codebook);
}

Result<void> check_dims(const std::vector<Module>& modules, const std::vector<Tier>& tiers) {
  for (const Module& m : modules)
    for (const Tier& t : tiers)
      if (m.matrix->n_cols % t.dim != 0)
        return fail("{}: {} columns cannot be cut into sub-vectors of d = {} (tier {})",
                    m.matrix->name, m.matrix->n_cols, t.dim, t.name);
  return {};
}

}  // namespace

Result<std::vector<Codebook>> fit_codebooks(const ModelWeights& weights, const ModelStats& stats,
                                            const Recipe& recipe, ThreadPool& pool,
                                            const PlanHooks& hooks) {
  std::vector<Module> modules;
  for (std::size_t l = 0; l < stats.size(); ++l) {
    const std::vector<Module> of_layer = modules_of(weights, stats, l);
    modules.insert(modules.end(), of_layer.begin(), of_layer.end());
  }
  if (modules.empty()) return fail("the model has no routed experts: there is nothing to quantise");
  ASSAY_TRY_VOID(check_dims(modules, recipe.tiers));
  std::vector<Codebook> out;
  for (std::size_t t = 0; t < recipe.tiers.size(); ++t) {
    const Tier& tier = recipe.tiers[t];
    const bool is_kept = hooks.state != nullptr && hooks.state->has_codebook(t);
    if (is_kept) {
      ASSAY_TRY(out.emplace_back(), hooks.state->load_codebook(t, tier));
      continue;
    }
    ASSAY_TRY(out.emplace_back(), fit_tier(modules, tier, recipe, pool, hooks));
    if (hooks.state != nullptr) ASSAY_TRY_VOID(hooks.state->save_codebook(t, tier, out.back()));
  }
  return out;
}

}  // namespace assay::engine
