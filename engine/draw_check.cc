#include "engine/draw_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/elementary.h"

namespace assay::engine {
namespace {

using kernels::exp_f64;
using kernels::log_f64;

// Less likely than e^-60 times the first: together nothing that a double notices.
constexpr double kFarBelow = 60;
// Two sums of the same probabilities may round differently; where a filter's limit falls on the
// very edge of a token, what was left out is not held against the sampler.
constexpr double kEdge = 1e-9;

struct Candidate {
  double weight;    // relative to the most likely token
  double exponent;  // its logarithm
  int id;
};

bool less_likely(const Candidate& a, const Candidate& b) {
  return a.exponent != b.exponent ? a.exponent < b.exponent : a.id > b.id;
}

std::vector<Candidate> tempered(std::span<const float> logits, std::span<const int> history,
                                const SamplingParams& params) {
  std::vector<double> x(logits.begin(), logits.end());
  if (params.repetition_penalty != 1) {
    std::vector<int> seen(history.begin(), history.end());
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const int id : seen) {
      if (id < 0 || static_cast<std::size_t>(id) >= x.size()) continue;
      double& v = x[static_cast<std::size_t>(id)];
      v = v > 0 ? v / params.repetition_penalty : v * params.repetition_penalty;
    }
  }
  const double largest = *std::max_element(x.begin(), x.end());
  std::vector<Candidate> out;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exponent = (x[i] - largest) / params.temperature;
    if (exponent > -kFarBelow) out.push_back({exp_f64(exponent), exponent, static_cast<int>(i)});
  }
  return out;
}

// Keeps the most likely tokens: top_k of them, then those that top_p of the probability needs, then
// those not below min_p of the first. They come off a heap one by one: mostly few are wanted.
std::vector<Candidate> filtered(std::vector<Candidate> all, const SamplingParams& params,
                                bool& at_edge) {
  std::make_heap(all.begin(), all.end(), less_likely);
  const auto pop = [&] {
    std::pop_heap(all.begin(), all.end(), less_likely);
    const Candidate top = all.back();
    all.pop_back();
    return top;
  };
  std::vector<Candidate> kept;
  double total = 0;
  if (params.top_k > 0) {
    const auto n = std::min(all.size(), static_cast<std::size_t>(params.top_k));
    while (kept.size() < n) kept.push_back(pop());
    for (const Candidate& c : kept) total += c.weight;
    all.assign(kept.begin(), kept.end());  // descending: a heap already
    kept.clear();
  } else {
    for (const Candidate& c : all) total += c.weight;
  }
  double sum = 0;
  while (!all.empty()) {
    const Candidate c = pop();
    const bool enough = params.top_p < 1 && sum >= params.top_p * total;
    if (!kept.empty() && (enough || c.weight < params.min_p)) {
      at_edge = std::abs(sum - params.top_p * total) < kEdge * total ||
                std::abs(c.weight - params.min_p) < kEdge;
      break;
    }
    kept.push_back(c);
    sum += c.weight;
  }
  return kept;
}

}  // namespace

void DrawCheck::see(std::span<const float> logits, std::span<const int> history, int id) {
  if (params_.temperature == 0) return;
  std::vector<Candidate> kept = tempered(logits, history, params_);
  bool at_edge = false;  // the first token left out is so by rounding, it may be
  if (params_.top_k > 0 || params_.top_p < 1 || params_.min_p > 0)
    kept = filtered(std::move(kept), params_, at_edge);
  ++figures_.n_drawn;
  const auto taken =
      std::find_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.id == id; });
  if (taken == kept.end()) {
    figures_.n_impossible += !at_edge;
    before_ = 0;
    return;
  }
  // Normalisers: of what was asked for, and of the five temperatures, whose weights are powers.
  double total = 0, above = 0;
  std::array<double, 5> of_power{};
  for (const Candidate& c : kept) {
    const double root = std::sqrt(c.weight), fourth = std::sqrt(root), square = c.weight * c.weight;
    total += c.weight;
    if (less_likely(*taken, c)) above += c.weight;
    of_power[0] += square * square;
    of_power[1] += square;
    of_power[2] += c.weight * fourth;
    of_power[3] += root * fourth;
    of_power[4] += root;
  }
  constexpr std::array<double, 5> kPower = {4, 2, 1.25, 0.75, 0.5};
  auto sum = figures_.log_ratio.begin();
  const double log_p = taken->exponent - log_f64(total);
  for (std::size_t i = 0; i < kPower.size(); ++i)
    *sum++ += kPower[i] * taken->exponent - log_f64(of_power[i]) - log_p;

  // Means over the token's interval [a, b] of u.
  const double a = above / total, b = (above + taken->weight) / total;
  const double place = a + b - 1;                                       // of 2u − 1
  const double spread = 2 * (a * a + a * b + b * b) - 3 * (a + b) + 1;  // of 6u² − 6u + 1
  for (const double c : {-0.9, -0.3, -0.1, 0.9, 0.3, 0.1}) *sum++ += log_f64(1 + c * place);
  for (const double c : {0.9, 0.3, -0.9, -0.3}) *sum++ += log_f64(1 + c * spread);
  for (const double c : {0.9, 0.3, -0.9, -0.3}) *sum++ += log_f64(1 + c * place * before_);
  before_ = place;

  const double low = std::max(a, low_), high = std::min(b, high_);
  const double share = std::max(0.0, high - low) / (high_ - low_);
  for (const double c : {0.9, 0.3})
    *sum++ += log_f64(c * share / (taken->weight / total) + (1 - c));
  low_ = share > 0 ? low : a;
  high_ = share > 0 ? high : b;
}

}  // namespace assay::engine
