#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "kernels/elementary.h"
#include "kernels/sample.h"

namespace assay::kernels {
namespace {

bool all_finite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); });
}

// Keeps tokens as transformers' logits processors do: top-k, then top-p, then min-p, on
// probabilities of the tempered logits. `kept` comes in as all ids, goes out in descending order of
// probability.
std::vector<double> filter(std::vector<double>& logits, const SamplingParams& params,
                           std::vector<int>& kept) {
  // Logit and id side by side: a comparison that looks the logit up costs twice as much.
  std::vector<std::pair<double, int>> order;
  order.reserve(kept.size());
  for (const int id : kept) order.emplace_back(logits[id], id);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = order[i].second;
  if (params.top_k > 0) kept.resize(std::min(kept.size(), static_cast<std::size_t>(params.top_k)));
  std::vector<double> p(kept.size());
  const double largest = logits[kept[0]];
  double sum = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) sum += p[i] = exp_f64(logits[kept[i]] - largest);
  for (double& v : p) v /= sum;
  if (params.top_p < 1) {
    // The smallest set whose probability reaches top_p; at least one token.
    double cumulative = 0;
    std::size_t n = 0;
    while (n < p.size() && (n == 0 || cumulative < params.top_p)) cumulative += p[n++];
    p.resize(n);
  }
  if (params.min_p > 0) {
    std::size_t n = 1;
    while (n < p.size() && p[n] >= params.min_p * p[0]) ++n;
    p.resize(n);
  }
  kept.resize(p.size());
  return p;
}

}  // namespace

void mark_seen(std::span<const int> history, int vocab, std::uint32_t* seen) {
  std::fill_n(seen, n_seen_words(vocab), 0u);
  for (const int id : history)
    if (id >= 0 && id < vocab) seen[id / 32] |= 1u << id % 32;
}

double logsumexp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += exp_f64(static_cast<double>(v) - largest);
  return largest + log_f64(sum);
}

Sampled sample_at(std::span<const float> logits, std::span<const int> history,
                  const SamplingParams& params, double u, int n_top, std::span<const int> watched) {
  Sampled out;
  if (logits.empty() || !all_finite(logits)) return out;
  const double total = logsumexp(logits);

  if (params.repetition_penalty == 1 && params.temperature == 0) {
    out.id = static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  } else {
    std::vector<double> adjusted(logits.begin(), logits.end());
    if (params.repetition_penalty != 1) {
      std::vector<std::uint32_t> seen(n_seen_words(static_cast<int>(logits.size())));
      mark_seen(history, static_cast<int>(logits.size()), seen.data());
      for (std::size_t id = 0; id < adjusted.size(); ++id)
        if ((seen[id / 32] >> id % 32 & 1) != 0)
          adjusted[id] = adjusted[id] > 0 ? adjusted[id] / params.repetition_penalty
                                          : adjusted[id] * params.repetition_penalty;
    }
    if (params.temperature == 0) {
      out.id =
          static_cast<int>(std::max_element(adjusted.begin(), adjusted.end()) - adjusted.begin());
    } else {
      for (double& v : adjusted) v /= params.temperature;
      std::vector<int> kept(logits.size());
      std::iota(kept.begin(), kept.end(), 0);
      const std::vector<double> p = filter(adjusted, params, kept);
      double sum = 0;
      for (const double v : p) sum += v;
      const double at = u * sum;
      double cumulative = 0;
      out.id = kept.back();  // at == sum up to rounding
      for (std::size_t i = 0; i < p.size(); ++i) {
        cumulative += p[i];
        if (at < cumulative) {
          out.id = kept[i];
          break;
        }
      }
    }
  }

  out.logprob = static_cast<float>(static_cast<double>(logits[out.id]) - total);
  if (n_top > 0) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto n = std::min(order.size(), static_cast<std::size_t>(n_top));
    std::partial_sort(
        order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
        [&](int a, int b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
    for (std::size_t i = 0; i < n; ++i)
      out.top.emplace_back(order[i],
                           static_cast<float>(static_cast<double>(logits[order[i]]) - total));
  }
  for (const int id : watched)
    out.watched_probability.push_back(
        static_cast<float>(exp_f64(static_cast<double>(logits[id]) - total)));
  return out;
}

Sampled sample(std::span<const float> logits, std::span<const int> history,
               const SamplingParams& params, const SampleKey& key, int n_top,
               std::span<const int> watched) {
  return sample_at(logits, history, params, uniform_at(key.seed, key.stream, key.position), n_top,
                   watched);
}

Sampled sample(std::span<const float> logits, const SampleRequest& request) {
  Sampled out =
      sample(logits, request.history, request.params, request.key, request.n_top, request.watched);
  if (out.id >= 0 && request.params.temperature > 0)
    out.place = draw_place(logits, request.history, request.params, out.id);
  return out;
}

}  // namespace assay::kernels
