#include "harness/compare_length.h"

#include <cmath>

#include "base/hypothesis.h"

namespace assay::harness {

bool closed_its_thinking(const Sample& s) {
  return s.n_thinking_tokens > 0 && !s.forced_close &&
         s.outcome.termination != Termination::kNoClose &&
         s.outcome.termination != Termination::kEosInThink;
}

LengthRow length_row(std::span<const Pair> pairs) {
  LengthRow row;
  std::vector<double> log_ratio;
  std::vector<int> cluster;
  ClusterIds ids;
  std::vector<double> sum, count;  // by cluster
  for (const Pair& pair : pairs) {
    if (!closed_its_thinking(*pair.base) || !closed_its_thinking(*pair.candidate)) {
      ++row.n_left_out;
      continue;
    }
    const int id = ids.of(*pair.candidate);
    if (static_cast<std::size_t>(id) == sum.size()) {
      sum.push_back(0);
      count.push_back(0);
    }
    const double one = std::log(static_cast<double>(pair.candidate->n_thinking_tokens) /
                                pair.base->n_thinking_tokens);
    log_ratio.push_back(one);
    cluster.push_back(id);
    sum[static_cast<std::size_t>(id)] += one;
    count[static_cast<std::size_t>(id)] += 1;
  }
  if (log_ratio.empty()) return row;
  const ClusteredValue mean = clustered_value(log_ratio, cluster);
  row.n = mean.n_samples;
  row.n_clusters = mean.n_clusters;
  row.ratio = std::exp(mean.mean.estimate);
  if (mean.known) row.ratio95 = Interval{row.ratio, std::exp(mean.mean.lo), std::exp(mean.mean.hi)};
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] /= count[i];
  const SignedRank test = wilcoxon_signed_rank(sum);
  row.p = test.p;
  row.least_p = test.least_p;
  return row;
}

}  // namespace assay::harness
