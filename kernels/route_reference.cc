#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/elementary.h"
#include "kernels/route.h"

namespace assay::kernels {

void route_reference(const RouteArgs& a) {
  std::vector<double> score(static_cast<std::size_t>(a.n_experts)), choice(score.size());
  std::vector<int> order(score.size());
  for (int e = 0; e < a.n_experts; ++e) {
    score[e] = 1.0 / (1.0 + exp_f64(-static_cast<double>(a.logits[e])));
    choice[e] = score[e] + static_cast<double>(a.bias[e]);
  }
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int l, int r) { return choice[l] != choice[r] ? choice[l] > choice[r] : l < r; });
  if (a.margin != nullptr)
    *a.margin = a.top_k < a.n_experts
                    ? static_cast<float>(choice[order[a.top_k - 1]] - choice[order[a.top_k]])
                    : std::numeric_limits<float>::infinity();
  order.resize(static_cast<std::size_t>(a.top_k));
  std::sort(order.begin(), order.end());
  double sum = 0;
  for (const int e : order) sum += score[e];
  const double scale = static_cast<double>(a.scaling) / (a.normalise ? sum + 1e-20 : 1.0);
  for (int i = 0; i < a.top_k; ++i) {
    a.expert[i] = order[i];
    a.weight[i] = static_cast<float>(score[order[i]] * scale);
  }
}

}  // namespace assay::kernels
