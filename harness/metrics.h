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

// What `metric` looks at: accuracy, closed and stopped look at the samples that ran (an error is
// never a zero), error looks at all. accuracy: the finished answer is correct; a reply without a
// finished answer is not. closed: </think> came exactly once, and nothing thought afterwards.
// stopped: the model ended the reply itself.
Rate rate_of(GateMetric metric, std::span<const Sample* const> samples);

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
  Rate accuracy, closed, stopped, error;
  int n_answered = 0;                  // finished answers
  double accuracy_answered = 0;        // correct ones among them: what truncation does not touch
  std::map<std::string, int> classes;  // by class_of
  std::map<std::string, int> finish;   // by finish reason; errors are not in it
  std::map<std::string, int> termination;
  Quantiles thinking_tokens;    // of samples that closed their thinking
  int n_thinking_censored = 0;  // that did not: their length is only a lower bound
  long n_tokens = 0;            // generated
};

// Rows in the order of the samples: per suite and arm the total, then by language, by kind, by
// both.
std::vector<Group> summarise(std::span<const Sample> samples);

Json to_json(const Rate& rate);
Json to_json(const Group& group);

}  // namespace assay::harness
