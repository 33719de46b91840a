// How far two builds are from the model they were made from, by what their runs measured (suite
// divergence). Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/stats.h"
#include "harness/compare.h"
#include "harness/divergence.h"
#include "harness/verdict.h"

namespace assay::harness {

// Mean KLD in nats of one language, thinking and answers together.
struct FidelityRow {
  std::string language;  // "all", or a language
  int n_texts = 0;
  // None: that run did not measure it. A baseline that is the base itself did not need to: 0.
  std::optional<Estimate> base, candidate;
  std::optional<double> noise_floor;  // mean KLD of the base in another arithmetic
  // Of the same texts, pair by pair, where both were measured against one base: candidate less base
  // over all positions, with its standard error over texts; and the candidate's KLD as a multiple
  // of the base's in the typical text: the geometric mean over texts, with its 95 % interval, each
  // KLD plus the noise floor. A few positions carry most of a mean; the ratio is of all texts.
  std::optional<Estimate> difference;
  std::optional<Interval> ratio;
  double p = 1, p_holm = 1;  // Wilcoxon's signed-rank test of the ratios' logarithms
  double least_p = 1;        // that so many texts could have given
  bool can_tell = false;     // least_p, adjusted, is below kAlpha: else the row can accuse nobody
  // The smallest ratio that would have been a regression, from how the texts differ here.
  std::optional<double> would_show;
  RowVerdict verdict = RowVerdict::kPass;
};

struct Fidelity {
  std::vector<FidelityRow> rows;  // all first; empty: neither run measured it
  std::string reason;             // why no difference is judged; empty: it is
  // Both have as many bytes of weights (to kSameSize), so nothing was bought with the distance.
  bool same_size = false;
  std::vector<std::string> warnings, regressions;
};

// Rows of so few texts that no p could be small enough are left out and cost the others nothing
// (Tarone 1990). A row warns if its adjusted p is below kAlpha and the typical text is
// kFidelityWarns times as far from the base. From kFidelityFloor on it is a regression if the two
// builds are of one size: a smaller one is further off by its making, and whether that matters is
// what the suites ask.
inline constexpr double kFidelityWarns = 1.10, kFidelityFloor = 1.25, kSameSize = 0.01;
Fidelity compare_fidelity(const Json& base_run, const Json& candidate_run);

// What it found, in a verdict. Before add_comparison: what is decided here stays so, whatever is
// only suspected there.
void add_fidelity(Verdict& verdict, const Fidelity& fidelity);
// Both, in that order. Of two runs that only measured, fidelity alone decides.
void add_comparison(Verdict& verdict, const Comparison& comparison, const Fidelity& fidelity,
                    const Confirmation& confirmation = {}, const ComparedRuns& whose = {});

Json to_json(const Fidelity& fidelity);

}  // namespace assay::harness
