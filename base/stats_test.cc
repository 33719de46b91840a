#include "base/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace assay {
namespace {

// Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine
// 17, table I, method 3 (score, no continuity correction); four decimals are published.
TEST(Wilson, GivesNewcombesPublishedIntervals) {
  const struct {
    int k, n;
    double lo, hi;
  } published[] = {{81, 263, 0.2553, 0.3662},
                   {15, 148, 0.0624, 0.1605},
                   {0, 20, 0, 0.1611},
                   {1, 29, 0.0061, 0.1718}};
  for (const auto& row : published) {
    const Interval interval = wilson(row.k, row.n);
    EXPECT_DOUBLE_EQ(interval.estimate, static_cast<double>(row.k) / row.n);
    EXPECT_NEAR(interval.lo, row.lo, 0.5e-4) << row.k << " of " << row.n;
    EXPECT_NEAR(interval.hi, row.hi, 0.5e-4) << row.k << " of " << row.n;
  }
}

TEST(Wilson, EndsAreTheRootsOfTheScoreEquation) {  // its definition: |p̂ - p| = z sqrt(p (1-p) / n)
  const double z = 2.5;
  for (const int k : {1, 7, 30, 49}) {
    const Interval w = wilson(k, 50, z);
    for (const double p : {w.lo, w.hi})
      EXPECT_NEAR(std::abs(k / 50.0 - p), z * std::sqrt(p * (1 - p) / 50), 1e-12);
  }
}

TEST(Wilson, StaysInTheUnitIntervalAndKnowsNothingFromNothing) {
  EXPECT_EQ(wilson(20, 20).hi, 1.0);
  EXPECT_NEAR(wilson(20, 20).lo, 1 - wilson(0, 20).hi, 1e-15);
  EXPECT_EQ(wilson(0, 20).lo, 0.0);
  EXPECT_EQ(wilson(0, 0).lo, 0.0);
  EXPECT_EQ(wilson(0, 0).hi, 1.0);
}

TEST(ClopperPearson, EqualsR) {
  const struct {
    int k, n;
    double lo, hi;
  } r[] = {// R: binom.test(k, n)$conf.int
           {3, 20, 0.032070937185464, 0.378926826545314},
           {0, 60, 0, 0.059629492286167},
           {60, 60, 0.940370507713833, 1},
           {81, 263, 0.252736745585271, 0.367621922601351},
           {1, 1, 0.025, 1}};
  for (const auto& row : r) {
    const Interval interval = clopper_pearson(row.k, row.n);
    EXPECT_NEAR(interval.lo, row.lo, 1e-12) << row.k << " of " << row.n;
    EXPECT_NEAR(interval.hi, row.hi, 1e-12) << row.k << " of " << row.n;
  }
  EXPECT_EQ(clopper_pearson(0, 0).lo, 0);
  EXPECT_EQ(clopper_pearson(0, 0).hi, 1);
}

TEST(ClusteredValue, IsStudentsIntervalOfClusterMeans) {
  // R: t.test(c(1, 2, 3, 4, 7))$conf.int = 0.541475 6.258525
  const std::vector<double> value = {1, 2, 3, 4, 7};
  const ClusteredValue one_each = clustered_value(value, std::vector<int>{0, 1, 2, 3, 4});
  EXPECT_NEAR(one_each.mean.lo, 0.541475, 1e-6);
  EXPECT_NEAR(one_each.mean.hi, 6.258525, 1e-6);
  // Every value twice in its cluster says nothing more.
  const std::vector<double> twice = {1, 1, 2, 2, 3, 3, 4, 4, 7, 7};
  const ClusteredValue pairs =
      clustered_value(twice, std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4});
  EXPECT_NEAR(pairs.mean.lo, one_each.mean.lo, 1e-12);
  EXPECT_FALSE(clustered_value(value, std::vector<int>{0, 0, 0, 0, 0}).known);
  EXPECT_FALSE(clustered_value(std::vector<double>{2, 2}, std::vector<int>{0, 1}).known);
}

TEST(StudentT, GivesThePublishedTable) {
  // NIST/SEMATECH e-Handbook 1.3.6.7.2, three decimals.
  EXPECT_NEAR(student_t_quantile(0.95, 1), 12.706, 5e-4);
  EXPECT_NEAR(student_t_quantile(0.95, 10), 2.228, 5e-4);
  EXPECT_NEAR(student_t_quantile(0.95, 30), 2.042, 5e-4);
  EXPECT_NEAR(student_t_quantile(0.95, 100), 1.984, 5e-4);
  EXPECT_NEAR(student_t_quantile(0.99, 5), 4.032, 5e-4);
  EXPECT_NEAR(student_t_quantile(0.80, 7), 1.415, 5e-4);
}

TEST(StudentT, EqualsTheClosedForms) {
  for (const double confidence : {0.5, 0.8, 0.95, 0.999}) {
    // 1 degree of freedom is Cauchy's distribution; for 2 the distribution function is algebraic.
    EXPECT_NEAR(student_t_quantile(confidence, 1) / std::tan(std::numbers::pi * confidence / 2), 1,
                1e-11);
    const double t2 = confidence * std::sqrt(2 / (1 - confidence * confidence));
    EXPECT_NEAR(student_t_quantile(confidence, 2) / t2, 1, 1e-11);
  }
  // And the normal distribution's as the degrees of freedom grow: z + (z^3 + z) / (4 df).
  const double z = 1.959963984540054, df = 1e6;
  EXPECT_NEAR(student_t_quantile(0.95, df), z + (z * z * z + z) / (4 * df), 1e-9);
}

TEST(StudentT, EnclosesItsConfidenceByIntegration) {
  for (const double df : {3.0, 3.5, 17.0, 59.0}) {
    const double t = student_t_quantile(0.95, df);
    const auto density = [&](double x) {
      return std::exp(std::lgamma((df + 1) / 2) - std::lgamma(df / 2)) /
             std::sqrt(df * std::numbers::pi) * std::pow(1 + x * x / df, -(df + 1) / 2);
    };
    constexpr int kSteps = 2000;  // Simpson's rule
    double sum = density(0) + density(t);
    for (int i = 1; i < kSteps; ++i) sum += (i % 2 == 1 ? 4 : 2) * density(t * i / kSteps);
    EXPECT_NEAR(2 * sum * t / kSteps / 3, 0.95, 1e-10) << df << " degrees of freedom";
  }
}

TEST(ClusteredMean, EqualsTheExampleByHand) {
  // Three clusters, seven samples, mean 4/7. Residual sums: {1,1,0} 2 - 12/7 = 2/7; {0,1} 1 - 8/7 =
  // -1/7; {1,0} -1/7. Squares 6/49; times 3/2, over 7^2: variance 9/2401, deviation 3/49. t with 2
  // degrees of freedom: 4.302652729911.
  const std::vector<double> score = {1, 1, 0, 0, 1, 1, 0};
  const std::vector<int> cluster = {5, 5, 5, 9, 9, 2, 2};
  const ClusteredMean m = clustered_mean(score, cluster);
  EXPECT_EQ(m.n_samples, 7);
  EXPECT_EQ(m.n_clusters, 3);
  EXPECT_NEAR(m.mean.estimate, 4.0 / 7, 1e-15);
  EXPECT_NEAR(m.mean.lo, 4.0 / 7 - 4.302652729911 * 3 / 49, 1e-11);
  EXPECT_NEAR(m.mean.hi, 4.0 / 7 + 4.302652729911 * 3 / 49, 1e-11);
}

TEST(ClusteredMean, SingletonClustersGiveTheOrdinaryStandardError) {
  const std::vector<double> score = {1, 0, 1, 1, 0, 1, 1, 1};
  const std::vector<int> cluster = {0, 1, 2, 3, 4, 5, 6, 7};
  const double p = 6.0 / 8, deviation = std::sqrt(p * (1 - p) / 7);  // s / sqrt(n), s^2 over n - 1
  const ClusteredMean m = clustered_mean(score, cluster);
  EXPECT_NEAR(m.mean.lo, p - student_t_quantile(0.95, 7) * deviation, 1e-12);
}

TEST(ClusteredMean, DoesNotDependOnTheOrderOfSamples) {
  std::vector<double> score;
  std::vector<int> cluster;
  for (int i = 0; i < 500; ++i) {
    score.push_back(uniform_at(1, 0, i));
    cluster.push_back(i / 3);
  }
  const Interval forward = clustered_mean(score, cluster).mean;
  std::vector<double> rotated_score(score.begin() + 250, score.end());
  rotated_score.insert(rotated_score.end(), score.begin(), score.begin() + 250);
  std::vector<int> rotated_cluster(cluster.begin() + 250, cluster.end());
  rotated_cluster.insert(rotated_cluster.end(), cluster.begin(), cluster.begin() + 250);
  const Interval rotated = clustered_mean(rotated_score, rotated_cluster).mean;
  EXPECT_NEAR(forward.lo, rotated.lo, 1e-12);
  EXPECT_NEAR(forward.hi, rotated.hi, 1e-12);
}

TEST(ClusteredMean, NoSpreadIsNotCertainty) {
  // 10 clusters of 3, all right: Wilson's interval for 10 of 10, not [1, 1] and not 30 of 30.
  std::vector<double> score(30, 1.0);
  std::vector<int> cluster;
  for (int i = 0; i < 30; ++i) cluster.push_back(i / 3);
  EXPECT_DOUBLE_EQ(clustered_mean(score, cluster).mean.lo, wilson(10, 10).lo);
  // Every cluster has the same mix: between clusters there is no spread, so again Wilson's, at 1/3.
  for (int i = 0; i < 30; ++i) score[i] = i % 3 == 0 ? 1 : 0;
  const Interval mixed = clustered_mean(score, cluster).mean;
  EXPECT_NEAR(mixed.estimate, 1.0 / 3, 1e-15);
  const double p = 1.0 / 3, z = 1.959963984540054;
  for (const double end : {mixed.lo, mixed.hi})
    EXPECT_NEAR(std::abs(end - p), z * std::sqrt(end * (1 - end) / 10), 1e-9);
}

TEST(ClusteredMean, OneClusterOrNoneSaysNothing) {
  const std::vector<double> score = {1, 0, 1};
  const ClusteredMean one = clustered_mean(score, std::vector<int>{4, 4, 4});
  EXPECT_EQ(one.mean.lo, 0.0);
  EXPECT_EQ(one.mean.hi, 1.0);
  EXPECT_EQ(clustered_mean({}, {}).mean.hi, 1.0);
}

TEST(ClusteredMean, CoversTheTruthAsOftenAsItSays) {
  // 2000 simulated nights of 60 problems × 3 languages. A problem has its own difficulty, uniform
  // on [0.4, 1], and with probability 0.6 one roll decides all three languages: true mean 0.7,
  // strongly correlated. The clustered interval covers in 95 % (binomial deviation 0.5 %); Wilson
  // over 180 "samples" pretends to know more and covers far less.
  constexpr int kNights = 2000, kProblems = 60, kLanguages = 3;
  int n_covered = 0, n_naive_covered = 0;
  for (int night = 0; night < kNights; ++night) {
    std::vector<double> score;
    std::vector<int> cluster;
    int n_right = 0;
    for (int problem = 0; problem < kProblems; ++problem) {
      const auto u = [&](int k) { return uniform_at(2024, night, problem * 8 + k); };
      const double difficulty = 0.4 + 0.6 * u(0);
      const bool together = u(1) < 0.6;
      for (int language = 0; language < kLanguages; ++language) {
        const bool right = u(together ? 2 : 3 + language) < difficulty;
        score.push_back(right ? 1 : 0);
        cluster.push_back(problem);
        n_right += right ? 1 : 0;
      }
    }
    const Interval clustered = clustered_mean(score, cluster).mean;
    const Interval naive = wilson(n_right, kProblems * kLanguages);
    n_covered += clustered.lo <= 0.7 && 0.7 <= clustered.hi ? 1 : 0;
    n_naive_covered += naive.lo <= 0.7 && 0.7 <= naive.hi ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(n_covered) / kNights, 0.95, 0.015);  // three deviations
  EXPECT_LT(static_cast<double>(n_naive_covered) / kNights, 0.85);
}

TEST(ClusteredDifference, ByHand) {
  // Six clusters, one of them -1: mean -1/6, variance of the mean 1/36, t of 5 degrees 2.570582.
  const std::vector<double> d = {-1, 0, 0, 0, 0, 0};
  const std::vector<int> own = {0, 1, 2, 3, 4, 5};
  const Interval i = clustered_difference(d, own).mean;
  EXPECT_NEAR(i.estimate, -1.0 / 6, 1e-12);
  EXPECT_NEAR(i.lo, -1.0 / 6 - 2.5705818 / 6, 1e-6);
  EXPECT_NEAR(i.hi, -1.0 / 6 + 2.5705818 / 6, 1e-6);
  // Nothing differs: as far as none of 50 reaches, 3.8415 / 53.8415.
  const std::vector<double> none(50, 0.0);
  std::vector<int> fifty(50);
  std::iota(fifty.begin(), fifty.end(), 0);
  EXPECT_NEAR(clustered_difference(none, fifty).mean.hi, 3.841459 / 53.841459, 1e-6);
  EXPECT_NEAR(clustered_difference(none, fifty).mean.lo, -3.841459 / 53.841459, 1e-6);
}

TEST(Median, IsTheMiddleOrTheMeanOfTheTwoMiddles) {
  EXPECT_EQ(median(std::vector<double>{3, 1, 2}), 2);
  EXPECT_EQ(median(std::vector<double>{4, 1, 3, 2}), 2.5);
}

TEST(ScaledMad, EstimatesANormalDeviationAndIgnoresAnOutlier) {
  EXPECT_DOUBLE_EQ(scaled_mad(std::vector<double>{1, 2, 3, 4, 1000}), 1.4826);
  std::vector<double> normal;  // Box and Muller
  for (int i = 0; i < 20'000; ++i)
    normal.push_back(3 * std::sqrt(-2 * std::log(1 - uniform_at(5, 0, i))) *
                     std::cos(2 * std::numbers::pi * uniform_at(5, 1, i)));
  EXPECT_NEAR(scaled_mad(normal), 3, 0.1);
}

// Coverages from tables of the sign test: n = 6 is 1 − 2/64, n = 9 with k = 2 is 1 − 20/512, and
// n = 20 takes the 6th and the 15th value with 95.86 %.
TEST(MedianInterval, LiesBetweenTheOrderStatisticsOfTheSignTest) {
  const MedianInterval six = median_interval(std::vector<double>{6, 1, 5, 2, 4, 3});
  EXPECT_EQ(six.median, 3.5);
  EXPECT_EQ(six.lo, 1);
  EXPECT_EQ(six.hi, 6);
  EXPECT_NEAR(six.coverage, 1 - 2.0 / 64, 1e-12);
  const MedianInterval nine = median_interval(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(nine.lo, 2);
  EXPECT_EQ(nine.hi, 8);
  EXPECT_NEAR(nine.coverage, 1 - 20.0 / 512, 1e-12);
  std::vector<double> twenty(20);
  std::iota(twenty.begin(), twenty.end(), 1);
  EXPECT_EQ(median_interval(twenty).lo, 6);
  EXPECT_EQ(median_interval(twenty).hi, 15);
  EXPECT_NEAR(median_interval(twenty).coverage, 0.9586, 5e-5);
}

TEST(MedianInterval, SaysHowLittleFewValuesCover) {
  EXPECT_NEAR(median_interval(std::vector<double>{1, 2, 3, 4, 5}).coverage, 0.9375, 1e-12);
  EXPECT_NEAR(median_interval(std::vector<double>{1, 2}).coverage, 0.5, 1e-12);
  const MedianInterval one = median_interval(std::vector<double>{7});
  EXPECT_EQ(one.lo, 7);
  EXPECT_EQ(one.hi, 7);
  EXPECT_EQ(one.coverage, 0);
}

TEST(NearestRank, IsAValueThatOccurred) {
  const std::vector<double> five = {10, 20, 30, 40, 50};
  EXPECT_EQ(nearest_rank(five, 0), 10);
  EXPECT_EQ(nearest_rank(five, 0.2), 10);
  EXPECT_EQ(nearest_rank(five, 0.5), 30);
  EXPECT_EQ(nearest_rank(five, 0.9), 50);
  EXPECT_EQ(nearest_rank(five, 1), 50);
  std::vector<double> hundred(100);
  std::iota(hundred.begin(), hundred.end(), 1);
  EXPECT_EQ(nearest_rank(hundred, 0.07), 7) << "0.07 · 100 is a little more than 7 in double";
  EXPECT_EQ(nearest_rank(hundred, 0.99), 99);
}

}  // namespace
}  // namespace assay
