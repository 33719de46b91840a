#include "engine/quantize/expert_hessians.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace assay::engine {
namespace {

int n_rows_of(const Rows& x, int width) {
  return static_cast<int>(x.size() / static_cast<std::size_t>(width));
}

void scale_rows(Rows& x, int width, const std::function<float(int)>& by) {
  for (int r = 0; r < n_rows_of(x, width); ++r)
    for (int c = 0; c < width; ++c)
      x[static_cast<std::size_t>(r) * static_cast<std::size_t>(width) +
        static_cast<std::size_t>(c)] *= by(r);
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
                               const MoeInputs& inputs, ThreadPool& pool)
    : config_(config),
      recipe_(recipe),
      inputs_(inputs),
      pool_(pool),
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
  Rows x = inputs.x;
  scale_rows(x, hidden, [&](int r) { return std::sqrt(mean_square[static_cast<std::size_t>(r)]); });
  of_layer_.add(x.data(), n_rows_of(x, hidden), pool);
  typical_ = static_cast<float>(std::sqrt(all_square / static_cast<double>(inputs.weight.size())));
}

Result<Hessian> ExpertHessians::of_inputs(std::size_t expert) const {
  Hessian own(config_.hidden);
  const Rows x = gather(inputs_.x, config_.hidden, rows_[expert], true);
  own.add(x.data(), rows_[expert].n(), pool_);
  return shrink(own, of_layer_, recipe_.shrinkage);
}

Result<Hessian> ExpertHessians::of_hidden(std::size_t expert, const MlpWeights& weights) const {
  const ExpertRows& rows = rows_[expert];
  const int width = config_.moe_intermediate;
  Rows own = mlp_hidden(weights, gather(inputs_.x, config_.hidden, rows, false), pool_);
  Rows borrowed = mlp_hidden(weights, sample_, pool_);
  scale_rows(own, width, [&](int r) { return rows.weight[static_cast<std::size_t>(r)]; });
  scale_rows(borrowed, width, [&](int) { return typical_; });
  Hessian of_own(width), of_borrowed(width);
  of_own.add(own.data(), rows.n(), pool_);
  of_borrowed.add(borrowed.data(), n_rows_of(borrowed, width), pool_);
  return shrink(of_own, of_borrowed, recipe_.shrinkage);
}

}  // namespace assay::engine
