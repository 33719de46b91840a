// Samples → numbers with their uncertainty, per arm, language and kind. Pure.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/stats.h"
#include "harness/sample.h"
#include "harness/suite.h"

namespace assay::harness {

// A share of samples for which something held, with its clustered 95 % interval.
struct Rate {
  int n = 0, n_clusters = 0, n_true = 0;
  Interval value = {0, 0, 1};
};

// What `metric` looks at: error at all samples, the others at those that ran (an error is never a
// zero). accuracy: of samples whose answer is judged, the finished answer is correct; a reply
// without a finished answer is not. closed: the model wrote </think> exactly once itself, and
// nothing thought afterwards. stopped: the model ended the reply itself. answered: thinking closed
// (or was closed at its budget) and a finished answer followed. language: of samples in which it
// can be told, answer and reasoning are in the languages asked for. no_loop: the reply does not end
// in a loop, exact or near, nor in one token.
bool looks_at(GateMetric metric, const Sample& sample);
bool holds(GateMetric metric, const Sample& sample);
Rate rate_of(GateMetric metric, std::span<const Sample* const> samples);

// Share of replies that still think after `n_tokens`: Kaplan–Meier (1958), with what ended at a
// limit, or was closed by force, as censored there: its thinking is at least so long.
struct SurvivalPoint {
  int n_tokens = 0;
  int n_at_risk = 0;  // replies that are known to have thought so far
  double share = 1;
  // 95 %: Greenwood's variance on the log(−log) scale; Wilson's where all or none have closed.
  double lo = 1, hi = 1;
};
struct Thought {
  int n_tokens = 0;
  bool closed = false;  // by the model; else censored
};
std::vector<SurvivalPoint> survival(std::span<const Thought> thoughts, std::span<const int> at);
// Where the curve is read: powers of two that budgets are made of.
inline constexpr int kSurvivalTokens[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384};

// One cell of a needle grid.
struct NeedleCell {
  std::string suite, arm;
  std::string language;  // or haystack.needle.question, where they differ
  std::string kind;      // empty: all that are gated
  int n_tokens = 0;
  double depth = 0;
  int n = 0, n_correct = 0;
  int n_reasked = 0, n_reask_correct = 0;
  Interval value = {0, 0, 1};  // Wilson, 95 %
};
std::vector<NeedleCell> needle_grid(std::span<const Sample> samples);

struct Quantiles {
  int n = 0;
  double p50 = 0, p90 = 0, max = 0;
};

// One row of the tables.
struct Group {
  std::string suite, arm;
  std::string language, kind;  // empty: all of them together
  bool gated = true;           // ungated samples have rows of their own
  int n = 0;                   // asked
  Rate accuracy, closed, stopped, error, answered, language_right, no_loop;
  int n_answered = 0;                  // finished answers
  double accuracy_answered = 0;        // correct ones among them: what truncation does not touch
  std::map<std::string, int> classes;  // by class_of
  std::map<std::string, int> finish;   // by finish reason; errors are not in it
  std::map<std::string, int> termination;
  Quantiles thinking_tokens;                     // of samples that closed their thinking
  int n_thinking_censored = 0;                   // that did not: their length is only a lower bound
  long n_tokens = 0;                             // generated
  std::vector<SurvivalPoint> thinking_survival;  // of arms that think
  int n_forced = 0;                              // closed at the budget
  int n_reached = 0;              // not correct, though the right answer stands in the thinking
  double hesitations_per_1k = 0;  // of thinking tokens
  int n_reasked = 0, n_reask_correct = 0;
};

// Rows in the order of the samples: per suite and arm the total, then by language, by kind, by
// both.
std::vector<Group> summarise(std::span<const Sample> samples);

Json to_json(const Rate& rate);
Json to_json(const Group& group);
Json to_json(const NeedleCell& cell);

}  // namespace assay::harness
