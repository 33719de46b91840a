#include "engine/draw_check.h"

#include <algorithm>

#include "kernels/elementary.h"

namespace assay::engine {

using kernels::log_f64;

void DrawCheck::see(const kernels::DrawPlace& token) {
  ++figures_.n_drawn;
  if (!token.is_kept) {
    figures_.n_impossible += !token.at_edge;
    before_ = 0;
    return;
  }
  auto sum = figures_.log_ratio.begin();
  const double log_p = token.exponent - log_f64(token.total);
  for (std::size_t i = 0; i < kernels::kDrawPowers.size(); ++i)  // the five temperatures
    *sum++ += kernels::kDrawPowers[i] * token.exponent - log_f64(token.of_power[i]) - log_p;

  // Means over the token's interval [a, b] of u.
  const double a = token.above / token.total, b = (token.above + token.weight) / token.total;
  const double place = a + b - 1;                                       // of 2u − 1
  const double spread = 2 * (a * a + a * b + b * b) - 3 * (a + b) + 1;  // of 6u² − 6u + 1
  for (const double c : {-0.9, -0.3, -0.1, 0.9, 0.3, 0.1}) *sum++ += log_f64(1 + c * place);
  for (const double c : {0.9, 0.3, -0.9, -0.3}) *sum++ += log_f64(1 + c * spread);
  for (const double c : {0.9, 0.3, -0.9, -0.3}) *sum++ += log_f64(1 + c * place * before_);
  before_ = place;

  const double low = std::max(a, low_), high = std::min(b, high_);
  const double share = std::max(0.0, high - low) / (high_ - low_);
  for (const double c : {0.9, 0.3})
    *sum++ += log_f64(c * share / (token.weight / token.total) + (1 - c));
  low_ = share > 0 ? low : a;
  high_ = share > 0 ? high : b;
}

void DrawCheck::see(std::span<const float> logits, std::span<const int> history, int id) {
  if (params_.temperature > 0) see(kernels::draw_place(logits, history, params_, id));
}

}  // namespace assay::engine
