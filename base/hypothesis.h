// Tests of one night against another: pure functions, exact where the sample is small.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/stats.h"

namespace assay {

// Two-sided exact test of k of n against a probability: all outcomes that are no likelier than k.
double binomial_p(int n_successes, int n, double probability);

// Totals of sums whose signs are free: the exact permutation test of paired differences, clustered.
// Given the sums' sizes, every sign is a coin's, so the distribution is reckoned, not sampled. With
// sums of ±1 that is McNemar's exact test. Zeros change nothing.
class SignFlip {
 public:
  void add(int cluster_sum);
  // Two-sided: the share of the 2^n ways to give the sums signs whose total is at least as far from
  // zero as theirs.
  double p() const;
  // The largest p that these sizes could have given and that is not above `p`; 0: none. It is the
  // probability of seeing a p as small as `p`, and less than it where a test is coarse.
  double at_most(double p) const;

 private:
  double tail(int distance) const;  // probability that a total is at least so far from zero

  std::vector<double> probability_ = {1};  // [reach_ + t] of total t
  int reach_ = 0, observed_ = 0;
};
double sign_flip_p(std::span<const int> cluster_sums);

// Wilcoxon's signed-rank test of paired differences, two-sided, zeros left out. As R's wilcox.test:
// exact below 50 differences without ties and zeros, else normal with corrections for ties and
// continuity.
struct SignedRank {
  double v = 0;  // sum of the ranks of positive differences
  int n = 0;     // differences that are not zero
  bool exact = true;
  double p = 1;
  double least_p = 1;  // that so many differences could have given
};
SignedRank wilcoxon_signed_rank(std::span<const double> differences);

// Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean, as R's
// cor(method = "spearman"). None where one of the two does not vary.
std::optional<double> rank_correlation(std::span<const double> x, std::span<const double> y);

// Mann–Whitney's U of two independent samples, two-sided, exact below 50 values a side without
// ties, else normal as above; and the Hodges–Lehmann shift: the median of all differences x − y,
// with the order statistics of these that the test does not reject. `coverage` is what the interval
// covers if x and y differ by a shift: at least what was asked for, but for very few values.
struct RankSum {
  double u = 0;  // pairs in which x is the larger
  bool exact = true;
  double p = 1;
  Interval shift = {0, 0, 0};
  double coverage = 0;
};
RankSum mann_whitney(std::span<const double> x, std::span<const double> y,
                     double confidence = 0.95);

// Holm 1979: the k-th smallest of m is multiplied by m − k + 1, and never below the one before.
std::vector<double> holm(std::span<const double> p);

}  // namespace assay
