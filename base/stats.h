// Statistics of a night: pure functions, values in, values out.
#pragma once

#include <span>

namespace assay {

struct Interval {
  double estimate, lo, hi;
};

// Wilson score interval of a binomial proportion (Wilson 1927); kZ95 gives 95 %. Without a
// sample it is [0, 1].
inline constexpr double kZ95 = 1.959963984540054;
Interval wilson(int n_successes, int n, double z = kZ95);

// Clopper and Pearson 1934: the probabilities that an exact one-sided test at (1 − confidence) / 2
// does not reject. Covers at least `confidence`, whatever the probability. Without a sample [0, 1].
Interval clopper_pearson(int n_successes, int n, double confidence = 0.95);

// Mean of 0/1 scores (or any in [0, 1]) with a cluster-robust interval. `cluster[i]` is the cluster
// of sample i: cases that share a problem (the same sum in three languages) are one cluster, not
// three samples (Miller 2024, arXiv 2411.00640). The variance is the sum over clusters of squared
// residual sums, with the factor G/(G-1); the interval is Student t with G - 1 degrees of freedom.
// Where no cluster differs from another (every score right, for one) that variance is 0 and says
// nothing, so the interval is then Wilson's with the number of clusters as n. One cluster alone
// gives [0, 1].
struct ClusteredMean {
  Interval mean;
  int n_samples, n_clusters;
};
ClusteredMean clustered_mean(std::span<const double> score, std::span<const int> cluster);

// Mean of paired differences in [-1, 1] with the same cluster-robust interval. Where no cluster
// differs from another it reaches as far as Wilson's bound for none among so many clusters, to both
// sides.
ClusteredMean clustered_difference(std::span<const double> difference,
                                   std::span<const int> cluster);

// Mean of any values, with the same interval. None of one cluster, nor where no cluster differs
// from another: the interval is then the mean alone, and `known` is false.
struct ClusteredValue {
  Interval mean;
  bool known = false;
  int n_samples, n_clusters;
};
ClusteredValue clustered_value(std::span<const double> value, std::span<const int> cluster);

// Two-sided quantile of Student's t: P(|T| <= t) = confidence.
double student_t_quantile(double confidence, double degrees_of_freedom);

double median(std::span<const double> values);
// Median absolute deviation from the median, times 1.4826 (the standard deviation of a normal
// sample).
double scaled_mad(std::span<const double> values);

// Median with an interval between order statistics: distribution-free. lo and hi are the k-th
// smallest and k-th largest value, with the largest k that still covers the median with 95 %:
// coverage = 1 − 2 P(Bin(n, 1/2) < k) (Conover, Practical Nonparametric Statistics, 3.2). Fewer
// than 6 values cannot reach that; it is then their whole range with the coverage that it has, 0 of
// one.
struct MedianInterval {
  double median, lo, hi, coverage;
};
MedianInterval median_interval(std::span<const double> values);

// The q-quantile of sorted values by nearest rank, the ceil(q n)-th of n: a value that occurred.
double nearest_rank(std::span<const double> sorted, double q);

}  // namespace assay
