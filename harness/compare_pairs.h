// The samples of two runs, side by side.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "harness/sample.h"

namespace assay::harness {

struct Pair {
  const Sample *base, *candidate;
};

// A candidate's samples with the base's of the same key, in the candidate's order.
std::vector<Pair> pairs_of(std::span<const Sample> base, std::span<const Sample> candidate);

// What a row counts: gated pairs of one suite and arm, all languages together or one of them.
struct PairGroup {
  std::string suite, arm, language;
  std::vector<Pair> pairs;
};
// All languages first, in the order of the pairs; then by language.
std::vector<PairGroup> group_pairs(std::span<const Pair> pairs);

// Numbers from 0 for the clusters of samples.
class ClusterIds {
 public:
  int of(const Sample& sample) {
    return ids_.emplace(sample.cluster, static_cast<int>(ids_.size())).first->second;
  }

 private:
  std::map<std::string, int> ids_;
};

}  // namespace assay::harness
