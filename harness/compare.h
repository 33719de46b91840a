// A run against a baseline, case by case: what regressed, how sure that is, and the smallest drop
// that would have been seen. Pure. The same cases, prompts and sampler on both sides; the models
// may differ. This is the first of two stages (harness/confirm.h is the second); the rule and its
// guarantee are in docs/design/verdicts.md.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/stats.h"
#include "harness/compare_length.h"
#include "harness/compare_rules.h"
#include "harness/metrics.h"
#include "harness/sample.h"

namespace assay::harness {

// What a row says. Of a row that needs confirmation the first stage says at most `suspected`.
enum class RowVerdict {
  kPass,
  kWarn,        // significant or as large as the floor, not both; or much shorter thinking
  kSuspected,   // looks like a regression, and draws decide whether it is one
  kRegression,  // decided: at once where nothing is drawn, else by the second stage
};
std::string_view name_of(RowVerdict verdict);  // "pass", "warn", "suspected", "regression"

// One metric over the pairs of one suite, arm and language.
struct PairedRow {
  std::string suite, arm;
  std::string language;  // empty: all of them together
  std::string metric;    // "accuracy"; "closed" for arms that think; "stopped"; "no_loop"
  std::string family;    // its suite, or kSmallSuites
  int n = 0, n_clusters = 0;
  int n_base = 0, n_candidate = 0;   // samples for which it held
  int n_regressed = 0, n_fixed = 0;  // held before and not now, and the other way round
  Interval difference = {0, -1, 1};  // candidate − base, clustered 95 %
  double p = 1;                      // exact sign-flip permutation over clusters, two-sided
  double p_holm = 1;                 // the same, adjusted within its family and across families
  int detectable = 0;  // further regressed samples that would have made this a regression
  double floor = kFloor;
  bool needs_confirmation = false;
  bool suspected = false;  // p < kAlpha and the net drop reaches the floor
  RowVerdict verdict = RowVerdict::kPass;

  int net_drop() const { return n_base - n_candidate; }
  // The smallest net drop, in percentage points, that would have been called; none if not even the
  // loss of every sample would.
  std::optional<double> detectable_points() const;
};
inline constexpr std::string_view kSmallSuites = "small suites";

// How long thinking is, with what it says.
struct JudgedLength : LengthRow {
  bool needs_confirmation = false;
  RowVerdict verdict = RowVerdict::kPass;
};
// Thinking that is longer by this factor is a regression, shorter by it a warning.
inline constexpr double kLengthFloor = 1.10;

// One likely token at a place.
struct RankedToken {
  int id = -1;
  double logprob = 0;
};
// What one side said where the two part.
struct TokenAt {
  int id = -1;                   // −1: it had ended
  std::vector<RankedToken> top;  // the most likely ones; empty where the record has none
};

// A sample whose class changed.
struct Flip {
  std::string key, language, kind, question, expected;
  std::string base_class, candidate_class, base_answer, candidate_answer;
  int first_difference = 0;  // position in the reply at which the token ids part
  TokenAt base_token, candidate_token;
  bool regressed = false;  // correct before, not now; else fixed
};

struct Comparison {
  std::vector<PairedRow> rows;        // accuracy first
  std::vector<JudgedLength> lengths;  // of arms that think
  std::vector<Flip> flips;            // regressed first
  int n_pairs = 0, n_same_tokens = 0, n_both_wrong = 0;
  int n_not_run = 0;     // pairs that are left out: a side ended in error or timeout …
  int n_non_finite = 0;  // … but for these: the candidate met NaN or Inf where the base did not
  std::vector<std::string> regressions;  // decided at this stage, one sentence each
  std::vector<std::string> suspicions;   // that a second stage has to decide
  std::vector<std::string> warnings;

  bool needs_confirmation() const { return !suspicions.empty(); }
};

// The first stage. A row is *suspected* if its raw p is below kAlpha and its net drop reaches its
// suite's floor. Where nothing is drawn and engines repeat their bits, it is decided here: a
// regression if also its adjusted p is below kAlpha. NaN or Inf that the base did not meet is one
// without statistics. Samples that did not run on either side are
// left out of the pairs: the validity of each run is its own gate's affair. Ungated samples are
// pairs and may be flips, but no row counts them.
Comparison compare(std::span<const Sample> base, std::span<const Sample> candidate,
                   const CompareRules& rules = {});

// Why two runs cannot be compared; empty if they can. Looks at the plans of both run.json, and at
// the prompts of each pair.
std::string not_comparable(const Json& base_run, const Json& candidate_run,
                           std::span<const Sample> base, std::span<const Sample> candidate);

// Text of a token id; without one, flips show ids.
using TokenText = std::function<std::string(int id)>;
Json to_json(const Comparison& comparison, const TokenText& text = {});

}  // namespace assay::harness
