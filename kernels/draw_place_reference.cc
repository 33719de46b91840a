#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/elementary.h"
#include "kernels/sample.h"

namespace assay::kernels {
namespace {

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
    if (exponent > -kDrawFarBelow)
      out.push_back({exp_f64(exponent), exponent, static_cast<int>(i)});
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
      at_edge = std::abs(sum - params.top_p * total) < kDrawEdge * total ||
                std::abs(c.weight - params.min_p) < kDrawEdge;
      break;
    }
    kept.push_back(c);
    sum += c.weight;
  }
  return kept;
}

}  // namespace

DrawPlace draw_place(std::span<const float> logits, std::span<const int> history,
                     const SamplingParams& params, int id) {
  std::vector<Candidate> kept = tempered(logits, history, params);
  DrawPlace out;  // at_edge: the first token left out is so by rounding, it may be
  if (params.top_k > 0 || params.top_p < 1 || params.min_p > 0)
    kept = filtered(std::move(kept), params, out.at_edge);
  const auto taken =
      std::find_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.id == id; });
  if (taken == kept.end()) return out;
  out.is_kept = true;
  out.exponent = taken->exponent;
  out.weight = taken->weight;
  for (const Candidate& c : kept) {
    const double root = std::sqrt(c.weight), fourth = std::sqrt(root), square = c.weight * c.weight;
    out.total += c.weight;
    if (less_likely(*taken, c)) out.above += c.weight;
    out.of_power[0] += square * square;
    out.of_power[1] += square;
    out.of_power[2] += c.weight * fourth;
    out.of_power[3] += root * fourth;
    out.of_power[4] += root;
  }
  return out;
}

}  // namespace assay::kernels
