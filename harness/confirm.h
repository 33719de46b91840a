// The second stage of a comparison: what looks like a regression in sampled arms is asked again
// with fresh draws on both sides, and the decision is taken on those alone. Pure.
// docs/design/verdicts.md has the reasons.
//
//   Comparison first = compare(base, candidate, rules);
//   keys = confirm_keys(first, base, candidate);
//   plan = confirmation_plan(*the plan of both runs*, keys);      // k draws per key, other seed
//   … run_plan(plan, base's target), run_plan(plan, candidate's target) …
//   Confirmation second = confirm(first, base_again, candidate_again);
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/compare.h"
#include "harness/plan.h"

namespace assay::harness {

inline constexpr int kConfirmDraws = 4;

// The cases to ask again, "suite/arm/id" (a case, whatever its repeats), sorted: of every suspected
// row that needs confirmation all cases with a discordant pair, in both directions, and as many
// whose pairs all agree, if there are so many, as controls: those whose keys' hashes are least. Of
// a suspected length all cases of its row.
std::vector<std::string> confirm_keys(const Comparison& first, std::span<const Sample> base,
                                      std::span<const Sample> candidate);

// Of `plan` the cases of `keys` alone, each asked `n_draws` times with another seed than the
// plan's. Keys that the plan does not ask are left out.
Plan confirmation_plan(Plan plan, std::span<const std::string> keys, int n_draws = kConfirmDraws);
std::uint64_t confirmation_seed(std::uint64_t first_seed);

inline constexpr std::string_view kLengthMetric = "length";

struct ConfirmedRow {
  std::string suite, arm, language, metric, family;
  int n_cases = 0, n_clusters = 0;
  int n = 0, n_base = 0, n_candidate = 0;  // draws on each side, and for how many the metric held
  double p = 1, p_holm = 1;                // sign-flip over the clusters' sums of all draws
  // Of a row of metric kLengthMetric: candidate / base; n counts draws that closed on both sides,
  // n_base and n_candidate their thinking tokens, p is Wilcoxon's over clusters.
  double ratio = 1;
  bool confirmed = false;
};

enum class ConfirmationState {
  kNotNeeded,     // nothing was suspected
  kRejected,      // the second stage did not see it again
  kConfirmed,     // at least one row is a regression
  kInconclusive,  // too many draws are missing
};
std::string_view name_of(ConfirmationState state);

struct Confirmation {
  ConfirmationState state = ConfirmationState::kNotNeeded;
  std::vector<ConfirmedRow> rows;        // one for each suspected row
  int n_cases = 0;                       // asked again, controls included
  int n_missing = 0;                     // pairs of draws of which a side did not run
  std::vector<std::string> regressions;  // one sentence each
  std::vector<std::string> problems;     // why it is inconclusive
};

// Of suspected rows only. A row is a regression if its adjusted p in the second stage is below
// kAlpha and its draws fell, or its thinking grew; that this is enough was seen in the first.
Confirmation confirm(const Comparison& first, std::span<const Sample> base_again,
                     std::span<const Sample> candidate_again);

// The first stage with what the second decided of its suspected rows. Inconclusive: unchanged.
Comparison settled(Comparison first, const Confirmation& second);

Json to_json(const Confirmation& confirmation);

}  // namespace assay::harness
