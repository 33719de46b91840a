// How much longer thinking became: paired, over what closed on both sides. Pure.
#pragma once

#include <span>
#include <string>

#include "base/stats.h"
#include "harness/compare_pairs.h"

namespace assay::harness {

struct LengthRow {
  std::string suite, arm, language, family;
  int n = 0, n_clusters = 0;        // pairs that closed their thinking on both sides
  int n_left_out = 0;               // pairs of which a side did not, so its length is not known
  double ratio = 1;                 // candidate / base, geometric mean
  std::optional<Interval> ratio95;  // clustered; none where no cluster differs from another
  double p = 1, p_holm = 1;         // Wilcoxon signed-rank over the clusters' mean log ratios
  double least_p = 1;               // that so many clusters could have given
};

// The model's own end of thinking: what a limit cut, or closed by force, is longer than it shows.
bool closed_its_thinking(const Sample& sample);

LengthRow length_row(std::span<const Pair> pairs);

}  // namespace assay::harness
