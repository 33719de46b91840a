// A run against a baseline, case by case: what regressed, how sure that is, and the smallest drop
// that would have been seen. Pure. The same cases, prompts and sampler on both sides; the models
// may differ.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/stats.h"
#include "harness/metrics.h"
#include "harness/sample.h"

namespace assay::harness {

// One metric over the pairs of one suite, arm and language.
struct PairedRow {
  std::string suite, arm;
  std::string language;  // empty: all of them together
  std::string metric;    // "accuracy", or "closed" for arms that think
  int n = 0, n_clusters = 0;
  int n_base = 0, n_candidate = 0;   // samples for which it held
  int n_regressed = 0, n_fixed = 0;  // held before and not now, and the other way round
  Interval difference = {0, -1, 1};  // candidate − base, clustered 95 %
  double p = 1;                      // exact sign-flip permutation over clusters, two-sided
  double p_holm = 1;                 // the same, adjusted over all rows of the comparison
  int detectable = 0;  // further regressed samples that would have made this a regression
  bool regressed = false;
};

// A sample whose class changed.
struct Flip {
  std::string key, language, kind, question, expected;
  std::string base_class, candidate_class, base_answer, candidate_answer;
  int first_difference = 0;  // position in the reply at which the token ids part
  bool regressed = false;    // correct before, not now; else fixed
};

struct Comparison {
  std::vector<PairedRow> rows;  // accuracy first
  std::vector<Flip> flips;      // regressed first
  int n_pairs = 0, n_same_tokens = 0, n_both_wrong = 0;
  std::vector<std::string> regressions;  // one sentence each
};

// A row is a regression if Holm's adjusted p is below kAlpha and the net drop reaches kFloor of its
// samples. Samples that did not run on either side are left out
// of the pairs: the validity of each run is its own gate's affair. Ungated samples are pairs and
// may be flips, but no row counts them.
inline constexpr double kAlpha = 0.01, kFloor = 0.02;
Comparison compare(std::span<const Sample> base, std::span<const Sample> candidate);

// Why two runs cannot be compared; empty if they can. Looks at the plans of both run.json, and at
// the prompts of each pair.
std::string not_comparable(const Json& base_run, const Json& candidate_run,
                           std::span<const Sample> base, std::span<const Sample> candidate);

Json to_json(const Comparison& comparison);

}  // namespace assay::harness
