// What a comparison must know of how its samples were made: floors of suites, and which arms draw
// their tokens. Read from the plans of both runs.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/json.h"
#include "harness/suite.h"

namespace assay::harness {

struct Plan;

// A drop below alpha that reaches a suite's floor, a share of a row's samples, is a regression.
inline constexpr double kAlpha = 0.01, kFloor = kDefaultFloor;
// A suite with fewer gated pairs shares a family with others as small.
inline constexpr int kSmallSuite = 50;

struct CompareRules {
  std::map<std::string, double> floors;             // by suite, those that are not kFloor
  std::set<std::string, std::less<>> sampled_arms;  // "suite/arm" at temperature > 0
  bool reproducible = true;  // both engines give the same bits when asked the same again

  double floor_of(const std::string& suite) const {
    const auto it = floors.find(suite);
    return it == floors.end() ? kFloor : it->second;
  }
  // Whether what was seen may have been the luck of a draw. Else asking again would give the same
  // bits, and tell nothing.
  bool needs_confirmation(std::string_view suite, std::string_view arm) const {
    return !reproducible || sampled_arms.contains(std::string(suite) + "/" + std::string(arm));
  }
};

CompareRules rules_of(const Plan& plan, bool reproducible = true);
// From two run.json of equal plans. Only the embedded engine promises the same bits.
CompareRules rules_of(const Json& base_run, const Json& candidate_run);

}  // namespace assay::harness
