#include "harness/sampler_check.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace assay::harness {

bool SamplerCheck::holds() const {
  return n_greedy == 0 && n_impossible == 0 && log10_evidence < -std::log10(kSamplerAlpha);
}

std::string SamplerCheck::text() const {
  if (n_greedy > 0)
    return fmt::format("{} of {} sampled replies were not drawn at all: the temperature is lost",
                       n_greedy, n_greedy + n_samples);
  if (n_impossible > 0)
    return fmt::format("{} of {} drawn tokens cannot come of the sampling asked for", n_impossible,
                       n_drawn);
  if (!holds())
    return fmt::format(
        "{} drawn tokens are 10^{:.1f} times likelier of a sampler that is wrong, most of all "
        "\"{}\"",
        n_drawn, log10_evidence, likeliest);
  return fmt::format(
      "{} drawn tokens are as the sampling asked for (evidence against it 10^{:.1f}, "
      "10^{:.0f} would be needed)",
      n_drawn, log10_evidence, -std::log10(kSamplerAlpha));
}

SamplerCheck check_sampler(std::span<const Sample> samples) {
  SamplerCheck out;
  std::map<std::string, double> log_ratio;
  for (const Sample& s : samples) {
    if (!s.draws || s.ids.empty()) continue;
    if (s.draws->n_drawn == 0) {
      ++out.n_greedy;
      continue;
    }
    ++out.n_samples;
    out.n_drawn += s.draws->n_drawn;
    out.n_impossible += s.draws->n_impossible;
    for (const auto& [name, ratio] : s.draws->log_ratio) log_ratio[name] += ratio;
  }
  if (log_ratio.empty()) return out;
  const auto most =
      std::max_element(log_ratio.begin(), log_ratio.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  double sum = 0;
  for (const auto& [name, ratio] : log_ratio) sum += std::exp(ratio - most->second);
  const double log_mean = most->second + std::log(sum / static_cast<double>(log_ratio.size()));
  out.log10_evidence = log_mean / std::log(10.0);
  out.likeliest = most->first;
  out.log10_likeliest = most->second / std::log(10.0);
  return out;
}

Json to_json(const SamplerCheck& check) {
  return {{"holds", check.holds()},
          {"text", check.text()},
          {"n_samples", check.n_samples},
          {"n_drawn", check.n_drawn},
          {"n_impossible", check.n_impossible},
          {"n_greedy", check.n_greedy},
          {"alpha", kSamplerAlpha},
          {"log10_evidence", check.log10_evidence},
          {"likeliest", check.likeliest},
          {"log10_likeliest", check.log10_likeliest}};
}

}  // namespace assay::harness
