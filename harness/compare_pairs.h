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
// All languages together first, in the order of `arms` ("suite/arm"; what is not there comes last),
// then by language. Neither groups nor their pairs depend on the order of `pairs`, in which samples
// happened to finish, but for arms that `arms` does not name.
std::vector<PairGroup> group_pairs(std::span<const Pair> pairs, std::span<const std::string> arms);

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
