// Which cases are asked, in which arms, in which order: chosen by recorded rules, never at random.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "harness/suite.h"

namespace assay::harness {

struct PlanOptions {
  Profile profile = Profile::kQuick;
  std::vector<std::string> languages, arms;  // empty: all
  int limit = 0;                             // > 0: the first `limit` items of the plan
  std::uint64_t seed = 0;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;  // override the suites'
  std::optional<int> top_k;
  std::optional<int> max_tokens;  // caps every arm's own
};

struct PlanItem {
  int suite, arm, case_index;
};

struct Plan {
  PlanOptions options;
  std::vector<Suite> suites;
  std::vector<Sampling> sampling;  // per suite, overrides applied
  std::vector<PlanItem> items;     // suite by suite, case by case, arm by arm

  const Suite& suite_of(const PlanItem& item) const { return suites[item.suite]; }
  const Case& case_of(const PlanItem& item) const { return suite_of(item).cases[item.case_index]; }
  const Arm& arm_of(const PlanItem& item) const { return suite_of(item).arms[item.arm]; }
  std::string key_of(const PlanItem& item) const;  // "arithmetic/thinking/ja-add-001"
  // What a resumed run must repeat exactly.
  Json to_json() const;
};

// An unknown language or arm, a suite without the profile, or a selection that leaves nothing is an
// error.
Result<Plan> make_plan(std::vector<Suite> suites, const PlanOptions& options);

}  // namespace assay::harness
