// Which weights broke an answer: a search from the coarse to the fine (layer, part, expert,
// projection) for a smallest set of the base's weights that makes the candidate right again. Pure:
// the model is behind two callbacks (harness/cli/attribute_trial.h). Method and limits:
// docs/design/attribution.md.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "harness/group_testing.h"

namespace assay::harness {

// One place where two models differ, from the coarse to the fine: {"layer 3", "experts", "expert
// 5", "down_proj"}, {"lm_head"}.
using SitePath = std::vector<std::string>;

struct AttributionOracle {
  // Is every case right with these sites (indices, ascending) of the base?
  Oracle reverts;
  // How far it comes with these sites, 0 as the candidate, 1 as the base; what is tried first.
  std::function<Result<double>(std::span<const int>)> recovery;
  // Told before a level is searched.
  std::function<void(std::string_view level, std::size_t n_groups)> on_level;
};

struct Suspect {
  std::string name;
  double recovery = 0;
};
struct AttributionLevel {
  std::string name;               // "layer", "part", "expert or tensor", "tensor"
  int n_groups = 0, n_tests = 0;  // tests that were not answered before
  std::vector<std::string> found;
  double recovery = 0;            // of all that was found here together
  std::vector<Suspect> suspects;  // every group alone, the greatest recovery first
};

struct Attribution {
  std::vector<int> sites;  // of the base, they make it right; empty: not even all do
  bool reverts = false;
  // None of the groups of the finest level reached can be left out.
  bool is_minimal = false;
  std::vector<AttributionLevel> levels;
  int n_tests = 0, n_recoveries = 0;
};

// `max_tests` of `reverts`, then the search ends with what it has.
Result<Attribution> attribute(std::span<const SitePath> sites, const AttributionOracle& oracle,
                              int max_tests);

// The names of a set: a group whose sites are all in it is named once, by its coarsest name.
std::vector<std::string> names_of(std::span<const SitePath> sites, std::span<const int> chosen);

}  // namespace assay::harness
