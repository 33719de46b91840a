// Does the sampler draw what it says? Pools what the drawn tokens of a run say of the generator
// (engine/draw_check.h) into one number with an exact false alarm rate. Pure.
// docs/design/sampler-check.md has the method.
#pragma once

#include <span>
#include <string>

#include "base/json.h"
#include "harness/sample.h"

namespace assay::harness {

// Of an honest generator 1 run in a million at most is accused, however short or long it is:
// Markov's inequality on a mean of likelihood ratios, each of which has expectation 1.
inline constexpr double kSamplerAlpha = 1e-6;

struct SamplerCheck {
  int n_samples = 0;          // that drew
  long n_drawn = 0;           // tokens
  long n_impossible = 0;      // tokens that the sampling asked for can never give
  int n_greedy = 0;           // replies of sampled arms in which nothing was drawn
  double log10_evidence = 0;  // mean ratio over the alternatives, as a power of ten
  std::string likeliest;      // the alternative with the largest ratio
  double log10_likeliest = 0;

  bool has_looked() const { return n_samples > 0 || n_greedy > 0; }
  bool holds() const;
  std::string text() const;  // one sentence
};

// Looks at samples of sampled arms: those that have draws.
SamplerCheck check_sampler(std::span<const Sample> samples);

Json to_json(const SamplerCheck& check);

}  // namespace assay::harness
