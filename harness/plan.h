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
  int limit = 0;  // > 0: so many items, spread over the suites, of each the first
  std::uint64_t seed = 0;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;  // override the suites'
  std::optional<int> top_k;
  std::optional<int> max_tokens;  // instead of every arm's own
};

struct PlanItem {
  int suite, arm, case_index;
  int repeat = 0;  // 1 to the arm's repeats; 0 where it asks once
};

struct Plan {
  PlanOptions options;
  std::vector<Suite> suites;    // every arm's limits and sampling as they are used
  std::vector<PlanItem> items;  // suite by suite, case by case, arm by arm, repeat by repeat

  const Suite& suite_of(const PlanItem& item) const { return suites[item.suite]; }
  const Case& case_of(const PlanItem& item) const { return suite_of(item).cases[item.case_index]; }
  const Sampling& sampling_of(const PlanItem& item) const { return *arm_of(item).sampling; }
  const Arm& arm_of(const PlanItem& item) const { return suite_of(item).arms[item.arm]; }
  // Generated cases that a model of so few positions cannot be asked; how many there were.
  int leave_out_longer(int max_positions);
  std::string key_of(
      const PlanItem& item) const;  // "arithmetic/thinking/ja-add-001", "thinking/sampled/x#2"
  // What a resumed run must repeat exactly.
  Json to_json() const;
};

// An unknown language or arm, a suite without the profile, or a selection that leaves nothing is an
// error.
Result<Plan> make_plan(std::vector<Suite> suites, const PlanOptions& options);

}  // namespace assay::harness
