#include "engine/quantize/expert_hessians.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace assay::engine {
namespace {

int n_rows_of(const Rows& x, int width) {
  return static_cast<int>(x.size() / static_cast<std::size_t>(width));
}

// Row r times by(r). Once a stop is asked for the rest is left out.
Rows scaled_rows(const Rows& x, int width, const std::function<float(int)>& by, Stop* stop) {
  Rows out;
  out.reserve(x.size());
  for (int r = 0; r < n_rows_of(x, width) && !is_stopped(stop); ++r) {
    const float scale = by(r);
    const float* row = &x[static_cast<std::size_t>(r) * static_cast<std::size_t>(width)];
    for (int c = 0; c < width; ++c) out.push_back(row[c] * scale);
  }
  return out;
}

// Rows evenly spaced among all.
Rows evenly(const Rows& x, int width, int n_wanted) {
  const int n = n_rows_of(x, width), n_taken = std::min(n, n_wanted);
  Rows out;
  for (int i = 0; i < n_taken; ++i) {
    const auto from = x.begin() + static_cast<std::int64_t>(i) * n / n_taken * width;
    out.insert(out.end(), from, from + width);
  }
  return out;
}

}  // namespace

ExpertHessians::ExpertHessians(const ModelConfig& config, const Recipe& recipe,
                               const MoeInputs& inputs, ThreadPool& pool, Stop* stop)
    : config_(config),
      recipe_(recipe),
      inputs_(inputs),
      pool_(pool),
      stop_(stop),
      rows_(rows_by_expert(inputs, config.n_experts, config.n_experts_per_token)),
      of_layer_(config.hidden),
      sample_(evenly(inputs.x, config.hidden, recipe.n_down_tokens)) {
  const int top_k = config.n_experts_per_token, hidden = config.hidden;
  std::vector<float> mean_square(static_cast<std::size_t>(n_rows_of(inputs.x, hidden)), 0.0f);
  double all_square = 0;
  for (std::size_t i = 0; i < inputs.weight.size(); ++i) {
    mean_square[i / static_cast<std::size_t>(top_k)] +=
        inputs.weight[i] * inputs.weight[i] / static_cast<float>(top_k);
    all_square += static_cast<double>(inputs.weight[i]) * static_cast<double>(inputs.weight[i]);
  }
  const Rows x = scaled_rows(
      inputs.x, hidden, [&](int r) { return std::sqrt(mean_square[static_cast<std::size_t>(r)]); },
      stop);
  static_cast<void>(of_layer_.add(x.data(), n_rows_of(x, hidden), pool, stop));
  typical_ = static_cast<float>(std::sqrt(all_square / static_cast<double>(inputs.weight.size())));
}

Result<Hessian> ExpertHessians::of_inputs(std::size_t expert) const {
  Hessian own(config_.hidden);
  const Rows x = gather(inputs_.x, config_.hidden, rows_[expert], true);
  ASSAY_TRY_VOID(own.add(x.data(), rows_[expert].n(), pool_, stop_));
  return shrink(own, of_layer_, recipe_.shrinkage, stop_);
}

Result<Hessian> ExpertHessians::of_hidden(std::size_t expert, const MlpWeights& weights) const {
  const ExpertRows& rows = rows_[expert];
  const int width = config_.moe_intermediate;
  const auto hidden = [&](const Rows& x, const std::function<float(int)>& by) {
    return scaled_rows(mlp_hidden(weights, x, pool_, stop_), width, by, stop_);
  };
  const Rows own = hidden(gather(inputs_.x, config_.hidden, rows, false),
                          [&](int r) { return rows.weight[static_cast<std::size_t>(r)]; });
  const Rows borrowed = hidden(sample_, [&](int) { return typical_; });
  Hessian of_own(width), of_borrowed(width);
  ASSAY_TRY_VOID(of_own.add(own.data(), n_rows_of(own, width), pool_, stop_));
  ASSAY_TRY_VOID(of_borrowed.add(borrowed.data(), n_rows_of(borrowed, width), pool_, stop_));
  return shrink(of_own, of_borrowed, recipe_.shrinkage, stop_);
}

}  // namespace assay::engine
