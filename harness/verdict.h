// Gates → one verdict. Validity comes first: a run in which cases failed to run proves nothing,
// good or bad. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/compare.h"
#include "harness/confirm.h"
#include "harness/metrics.h"
#include "harness/plan.h"
#include "harness/sample.h"
#include "harness/sampler_check.h"

namespace assay::harness {

enum class VerdictState {
  kPass,
  kWarn,  // nothing is decided, and something is worth a look
  kRegression,
  kInvalid,  // nothing can be concluded; or a regression is suspected and was not confirmed yet
};
std::string_view name_of(VerdictState state);  // "pass", "warn", "regression", "invalid"
// 0, 0, 1, 3 (2 is an error before there is a verdict)
int exit_code_of(VerdictState state);

enum class GateState { kPass, kFail, kNotRun };
std::string_view name_of(GateState state);

struct GateResult {
  std::string suite, name;
  std::string metric, where;
  std::optional<double> min, max;
  GateState state = GateState::kNotRun;  // not run: the plan's selection left it no sample
  Rate rate;
  std::string detail;  // how far it was from failing, and what it could have seen
};

struct Verdict {
  VerdictState state = VerdictState::kInvalid;
  std::string summary;                // what was found, whatever the state
  std::string regressed;              // of the first regression: what and by how much
  int n_regressed = 0;                // how many there are
  std::vector<std::string> problems;  // why it is invalid, or what regressed
  std::vector<std::string> warnings;  // what is worth a look
  std::vector<GateResult> gates;
  SamplerCheck sampler;  // of sampled arms
};

// A gate compares the measured share with its limit: on the same cases the same model gives the
// same share, so no interval is needed to see a change; the interval says what the share means for
// other cases. Two gates are always there: no sample is missing or an error (else invalid; a
// suite's own `error` gate replaces the limit of none), and no reply met NaN or Inf (else
// regression: the model ran, and what it computed is broken). Where tokens were drawn, a third: the
// sampler draws what it says (else regression).
// A run that only measures has no gate: it passes if it is told that something was measured.
Verdict judge(const Plan& plan, std::span<const Sample> samples, int n_measured = 0);

// The verdict of a run that has a baseline: a regression against it is one, and what cannot be
// compared (`reason`, see not_comparable) is not valid.
// Of a comparison that has been confirmed, its `settled` form (harness/confirm.h) and what the
// second stage found. `whose` names the two runs where a command is suggested.
struct ComparedRuns {
  std::string base = "BASE", candidate = "CANDIDATE";
};
void add_comparison(Verdict& verdict, const Comparison& comparison, const std::string& reason,
                    const Confirmation& confirmation = {}, const ComparedRuns& whose = {});

// A further finding of a comparison (fidelity, speed) that has its own rule.
void add_finding(Verdict& verdict, VerdictState state, std::string sentence);

// A problem that is a regression.
void add_regression(Verdict& verdict, std::string sentence);

// The summary, after what regressed and by how much if something did.
std::string headline(const Verdict& verdict);

Json to_json(const Verdict& verdict);  // "summary" is the headline

}  // namespace assay::harness
