#include "harness/divergence.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "base/check.h"
#include "base/rng.h"

namespace assay::harness {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

int argmax(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// p log(p / q), and 0 where p is.
double term(double log_p, double log_q) { return std::exp(log_p) * (log_p - log_q); }

// The mass that the top tokens leave, never below what rounding alone can make of a zero.
double rest(double mass) { return std::max(1 - mass, 1e-12); }

// One statistic of the positions in `order`.
struct Statistics {
  double kld_mean, median, p90, p95, p99, p999, max, dp_mean, dp_rms, top1, nll_base, nll_candidate;
};

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Statistics statistics(const std::vector<const PositionDivergence*>& positions) {
  Statistics s{};
  std::vector<double> kld;
  kld.reserve(positions.size());
  for (const PositionDivergence* d : positions) {
    kld.push_back(d->kld);
    s.kld_mean += d->kld;
    s.dp_mean += d->delta_p;
    s.dp_rms += d->delta_p * d->delta_p;
    s.top1 += d->same_top1 ? 1 : 0;
    s.nll_base += d->nll_base;
    s.nll_candidate += d->nll_candidate;
  }
  const auto n = static_cast<double>(positions.size());
  for (double* sum : {&s.kld_mean, &s.dp_mean, &s.dp_rms, &s.top1, &s.nll_base, &s.nll_candidate})
    *sum /= n;
  s.dp_rms = std::sqrt(s.dp_rms);
  std::sort(kld.begin(), kld.end());
  s.median = quantile(kld, 0.5);
  s.p90 = quantile(kld, 0.9);
  s.p95 = quantile(kld, 0.95);
  s.p99 = quantile(kld, 0.99);
  s.p999 = quantile(kld, 0.999);
  s.max = kld.back();
  return s;
}

DivergenceSummary summarise_group(std::string lang, std::string part,
                                  const std::vector<const ScoredPosition*>& group,
                                  int n_resamples) {
  DivergenceSummary out;
  out.lang = std::move(lang);
  out.part = std::move(part);
  out.n_positions = static_cast<int>(group.size());
  std::map<int, std::vector<const PositionDivergence*>> by_text;
  for (const ScoredPosition* p : group) by_text[p->text].push_back(&p->d);
  std::vector<const std::vector<const PositionDivergence*>*> texts;
  std::vector<const PositionDivergence*> all;
  for (const auto& [text, positions] : by_text) {
    texts.push_back(&positions);
    all.insert(all.end(), positions.begin(), positions.end());
  }
  out.n_texts = static_cast<int>(texts.size());
  double coarsening = 0, at_most = 0;
  bool is_lower_bound = false;
  for (const PositionDivergence* d : all) {
    coarsening += d->kld - d->kld_top;
    at_most += d->kld_at_most;
    out.tail_mass += d->tail;
    is_lower_bound = is_lower_bound || d->is_lower_bound;
  }
  const auto n = static_cast<double>(all.size());
  out.tail_mass /= n;
  (is_lower_bound ? out.kld_mean_at_most : out.coarsening) =
      (is_lower_bound ? at_most : coarsening) / n;

  std::vector<Statistics> resampled;
  for (int b = 0; b < n_resamples && texts.size() > 1; ++b) {
    std::vector<const PositionDivergence*> drawn;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const double u = uniform_at(0x646976, static_cast<std::uint64_t>(b), i);
      const auto& text = *texts[static_cast<std::size_t>(u * static_cast<double>(texts.size()))];
      drawn.insert(drawn.end(), text.begin(), text.end());
    }
    resampled.push_back(statistics(drawn));
  }
  const Statistics whole = statistics(all);
  const auto estimate = [&](const auto& of) {
    Estimate e{.value = of(whole), .error = std::nullopt};
    if (resampled.size() < 2) return e;
    double mean = 0, square = 0;
    for (const Statistics& s : resampled) mean += of(s);
    mean /= static_cast<double>(resampled.size());
    for (const Statistics& s : resampled) square += (of(s) - mean) * (of(s) - mean);
    e.error = std::sqrt(square / static_cast<double>(resampled.size() - 1));
    return e;
  };
  out.kld_mean = estimate([](const Statistics& s) { return s.kld_mean; });
  out.kld_median = estimate([](const Statistics& s) { return s.median; });
  out.kld_p90 = estimate([](const Statistics& s) { return s.p90; });
  out.kld_p95 = estimate([](const Statistics& s) { return s.p95; });
  out.kld_p99 = estimate([](const Statistics& s) { return s.p99; });
  out.kld_p999 = estimate([](const Statistics& s) { return s.p999; });
  out.kld_max.value = whole.max;
  out.delta_p_mean = estimate([](const Statistics& s) { return s.dp_mean; });
  out.delta_p_rms = estimate([](const Statistics& s) { return s.dp_rms; });
  out.top1_agreement = estimate([](const Statistics& s) { return s.top1; });
  out.perplexity_base = estimate([](const Statistics& s) { return std::exp(s.nll_base); });
  out.perplexity_candidate =
      estimate([](const Statistics& s) { return std::exp(s.nll_candidate); });
  out.perplexity_ratio =
      estimate([](const Statistics& s) { return std::exp(s.nll_candidate - s.nll_base); });
  return out;
}

}  // namespace

BasePosition summarise_base(std::span<const float> logits, int next) {
  const double lse = log_sum_exp(logits);
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::min<std::size_t>(BasePosition::kTop, logits.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
      [&](int a, int b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  BasePosition out{
      .next = next, .next_logprob = static_cast<float>(logits[next] - lse), .tail = 0, .top = {}};
  double mass = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double logprob = logits[order[i]] - lse;
    out.top.emplace_back(order[i], static_cast<float>(logprob));
    mass += std::exp(logprob);
  }
  out.tail = static_cast<float>(n == logits.size() ? 0 : rest(mass));
  return out;
}

PositionDivergence diverge(const BasePosition& base, std::span<const float> candidate) {
  const double lse = log_sum_exp(candidate);
  PositionDivergence d;
  double q_mass = 0, of_top = 0;
  for (const auto& [id, logprob] : base.top) {
    const double log_q = candidate[id] - lse;
    of_top += term(logprob, log_q);
    q_mass += std::exp(log_q);
  }
  double of_tail = 0, of_tail_at_most = 0;
  if (base.tail > 0) {
    const double log_tail = std::log(base.tail);
    const double log_most = std::min<double>(log_tail, base.top.back().second);
    const double log_least = *std::min_element(candidate.begin(), candidate.end()) - lse;
    of_tail = term(log_tail, std::log(rest(q_mass)));
    of_tail_at_most = base.tail * (log_most - log_least);
  }
  d.kld = d.kld_top = std::max(0.0, of_top + of_tail);
  d.kld_at_most = std::max(d.kld_top, of_top + of_tail_at_most);
  d.tail = base.tail;
  d.is_lower_bound = true;
  const double log_q = candidate[base.next] - lse;
  d.nll_base = -static_cast<double>(base.next_logprob);
  d.nll_candidate = -log_q;
  d.delta_p = std::exp(log_q) - std::exp(static_cast<double>(base.next_logprob));
  d.same_top1 = base.top.front().first == argmax(candidate);
  return d;
}

PositionDivergence diverge(std::span<const float> base, std::span<const float> candidate,
                           int next) {
  CHECK(base.size() == candidate.size()) << base.size() << " " << candidate.size();
  PositionDivergence d = diverge(summarise_base(base, next), candidate);
  const double base_lse = log_sum_exp(base), candidate_lse = log_sum_exp(candidate);
  const double log_p = base[next] - base_lse, log_q = candidate[next] - candidate_lse;
  d.nll_base = -log_p;
  d.nll_candidate = -log_q;
  d.delta_p = std::exp(log_q) - std::exp(log_p);
  double kld = 0;
  for (std::size_t i = 0; i < base.size(); ++i)
    kld += term(base[i] - base_lse, candidate[i] - candidate_lse);
  d.kld = d.kld_at_most = std::max(0.0, kld);
  d.is_lower_bound = false;
  return d;
}

std::vector<DivergenceSummary> summarise(std::span<const ScoredPosition> positions,
                                         int n_resamples) {
  // By (language, part); "all" comes first, whatever the languages are called.
  using Key = std::tuple<bool, std::string, std::string>;
  std::map<Key, std::vector<const ScoredPosition*>> groups;
  for (const ScoredPosition& p : positions)
    for (const std::string& lang : std::set<std::string>{"all", p.lang})
      for (const char* part : {"all", p.part == TextPart::kThinking ? "thinking" : "answer"})
        groups[{lang != "all", lang, part}].push_back(&p);
  std::vector<DivergenceSummary> out;
  for (const auto& [key, group] : groups)
    out.push_back(summarise_group(std::get<1>(key), std::get<2>(key), group, n_resamples));
  return out;
}

Json to_json(const DivergenceSummary& s) {
  const auto or_null = [](const std::optional<double>& x) { return x ? Json(*x) : Json(); };
  const auto pair = [&](const Estimate& e) {
    return Json{{"value", e.value}, {"error", or_null(e.error)}};
  };
  return {{"lang", s.lang},
          {"part", s.part},
          {"n_positions", s.n_positions},
          {"n_texts", s.n_texts},
          {"kld",
           {{"mean", pair(s.kld_mean)},
            {"median", pair(s.kld_median)},
            {"p90", pair(s.kld_p90)},
            {"p95", pair(s.kld_p95)},
            {"p99", pair(s.kld_p99)},
            {"p99.9", pair(s.kld_p999)},
            {"max", pair(s.kld_max)}}},
          {"kld_coarsening", or_null(s.coarsening)},
          {"kld_mean_at_most", or_null(s.kld_mean_at_most)},
          {"tail_mass", s.tail_mass},
          {"delta_p", {{"mean", pair(s.delta_p_mean)}, {"rms", pair(s.delta_p_rms)}}},
          {"top1_agreement", pair(s.top1_agreement)},
          {"perplexity",
           {{"base", pair(s.perplexity_base)},
            {"candidate", pair(s.perplexity_candidate)},
            {"ratio", pair(s.perplexity_ratio)}}}};
}

}  // namespace assay::harness
