// The plan's second step: what every tier's nearest codewords would cost every module.
#include <algorithm>

#include "engine/backend/matrix_view.h"
#include "engine/quantize/plan.h"
#include "engine/quantize/state.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

constexpr int kModulesPerProgress = 16;

// What one matrix adds to its layer's output: the error if it were zero.
double output_energy(const Module& m, const std::vector<float>& w) {
  const auto n_cols = static_cast<std::size_t>(m.matrix->n_cols);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i)
    sum += static_cast<double>(w[i]) * static_cast<double>(w[i]) *
           static_cast<double>(m.stats->row_weight[i / n_cols]) *
           static_cast<double>(m.stats->col_energy[i % n_cols]);
  return std::max(sum, 1e-12);  // an expert that no token saw
}

// Predicted output error of one matrix with its nearest codewords.
Result<double> nearest_error(const Module& m, const std::vector<float>& w, const Codebook& book,
                             int group, ThreadPool& pool, Stop* stop) {
  const int n_rows = m.matrix->n_rows, n_cols = m.matrix->n_cols, dim = book.dim;
  const int n_sub = n_cols / dim, n_lanes = (n_sub + kLaneStep - 1) / kLaneStep * kLaneStep;
  const auto target = kernels::usable_cpu_targets().front();
  std::vector<double> row_error(static_cast<std::size_t>(n_rows));
  ASSAY_TRY_VOID(parallel_for(pool, stop, n_rows, [&](int r) {
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
  }));
  double total = 0;
  for (const double e : row_error) total += e;
  return total;
}

Result<LayerErrors> errors_of(const std::vector<Module>& modules,
                              const std::vector<Codebook>& codebooks, int group, ThreadPool& pool,
                              Stop* stop, const std::function<void()>& on_module) {
  LayerErrors out;
  for (const Module& m : modules) {
    on_module();
    ASSAY_TRY_VOID(go_on(stop));
    const std::vector<float> w = to_floats(*m.matrix);
    ModuleErrors& of = out.emplace_back();
    of.energy = output_energy(m, w);
    for (const Codebook& book : codebooks) {
      ASSAY_TRY(of.nearest.emplace_back(), nearest_error(m, w, book, group, pool, stop));
    }
  }
  return out;
}

}  // namespace

Result<std::vector<LayerErrors>> predict_errors(const ModelWeights& weights,
                                                const ModelStats& stats,
                                                const std::vector<Codebook>& codebooks,
                                                const Recipe& recipe, ThreadPool& pool,
                                                const PlanHooks& hooks) {
  int n_modules = 0, n_done = 0;
  for (const auto& layer : stats) n_modules += static_cast<int>(layer.size() * kProjections.size());
  std::vector<LayerErrors> out;
  for (std::size_t l = 0; l < stats.size(); ++l) {
    const std::vector<Module> modules = modules_of(weights, stats, l);
    const auto on_module = [&] {
      if (n_done++ % kModulesPerProgress == 0)
        hooks.show("errors of tiers, module", n_done - 1, n_modules);
    };
    if (hooks.state != nullptr && hooks.state->has_errors(l)) {
      ASSAY_TRY(out.emplace_back(),
                hooks.state->load_errors(l, modules.size(), recipe.tiers.size()));
      n_done += static_cast<int>(modules.size());
      continue;
    }
    ASSAY_TRY(out.emplace_back(),
              errors_of(modules, codebooks, recipe.group, pool, hooks.stop, on_module));
    if (hooks.state != nullptr && !modules.empty())
      ASSAY_TRY_VOID(hooks.state->save_errors(l, out.back()));
  }
  return out;
}

}  // namespace assay::engine
