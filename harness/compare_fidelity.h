// How far two builds are from the model they were made from, by what their runs measured (suite
// divergence). Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "harness/compare.h"
#include "harness/divergence.h"

namespace assay::harness {

// Mean KLD in nats of one language, thinking and answers together.
struct FidelityRow {
  std::string language;  // "all", or a language
  int n_texts = 0;
  std::optional<Estimate> base, candidate;  // none: that run did not measure it
  std::optional<double> noise_floor;        // mean KLD of the base in another arithmetic
  // Candidate less base with its standard error, where both were measured against one base on the
  // same texts. The two errors are added as if independent; the texts are the same, so it is less.
  std::optional<Estimate> difference;
  double p = 1, p_holm = 1;
  RowVerdict verdict = RowVerdict::kPass;
};

struct Fidelity {
  std::vector<FidelityRow> rows;  // all first; empty: neither run measured it
  std::string reason;             // why no difference is judged; empty: it is
  std::vector<std::string> warnings;
};

// A row warns if its adjusted p is below kAlpha and KLD grew by kFidelityFloor of the base's, and
// by more than the noise floor. It never is a regression: a smaller build is further off by its
// making, and whether that matters is what the suites ask.
inline constexpr double kFidelityFloor = 0.10;
Fidelity compare_fidelity(const Json& base_run, const Json& candidate_run);

Json to_json(const Fidelity& fidelity);

}  // namespace assay::harness
