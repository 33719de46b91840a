#include "base/hypothesis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace assay {
namespace {

TEST(BinomialTest, EqualsR) {
  // R 4.2: binom.test(3, 20, 0.3)$p.value, (12, 14, 0.5), (7, 243, 0.01)
  EXPECT_NEAR(binomial_p(3, 20, 0.3), 0.220418267380709, 1e-12);
  EXPECT_NEAR(binomial_p(12, 14, 0.5), 0.012939453125, 1e-12);
  EXPECT_NEAR(binomial_p(7, 243, 0.01), 0.0118849330007891, 1e-12);
}

TEST(BinomialTest, KnowsItsEdges) {
  EXPECT_EQ(binomial_p(0, 0, 0.3), 1);
  EXPECT_EQ(binomial_p(0, 5, 0), 1);
  EXPECT_EQ(binomial_p(1, 5, 0), 0);
  EXPECT_EQ(binomial_p(5, 5, 1), 1);
  EXPECT_NEAR(binomial_p(0, 7, 0.1), 1, 1e-12);  // R: binom.test(0, 7, 0.1)$p.value = 1
}

TEST(SignFlip, IsMcNemarWithoutClusters) {
  // R: 2 * pbinom(2, 12, 0.5) = 0.03857422
  std::vector<int> sums(10, -1);
  sums.insert(sums.end(), {1, 1, 0, 0});
  EXPECT_NEAR(sign_flip_p(sums), 0.03857421875, 1e-12);
  EXPECT_EQ(sign_flip_p({}), 1);
  EXPECT_EQ(sign_flip_p(std::vector<int>{1, -1}), 1);
}

TEST(SignFlip, CountsEverySignOfEveryCluster) {
  // Sizes 3, 1, 1, 2, observed -5: of 16 totals 2 are ±7 and 4 are ±5.
  EXPECT_DOUBLE_EQ(sign_flip_p(std::vector<int>{-3, -1, 1, -2}), 6.0 / 16);
  // Against all signs, tried one by one.
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<int> sums;
    for (std::uint64_t i = 0; i < 11; ++i)
      sums.push_back(static_cast<int>(7 * uniform_at(9, seed, i)) - 3);
    const int observed = std::abs(std::accumulate(sums.begin(), sums.end(), 0));
    int n_far = 0;
    for (unsigned signs = 0; signs < 1u << 11; ++signs) {
      int total = 0;
      for (unsigned i = 0; i < 11; ++i) total += (signs >> i & 1u) != 0 ? sums[i] : -sums[i];
      n_far += std::abs(total) >= observed;
    }
    EXPECT_NEAR(sign_flip_p(sums), n_far / 2048.0, 1e-12);
  }
}

TEST(SignFlip, SaysWhichPItsSizesCanGive) {
  SignFlip test;  // R: 2 * pbinom(0:1, 5, 0.5) = 0.0625 0.375
  for (int i = 0; i < 5; ++i) test.add(i < 4 ? 1 : -1);
  EXPECT_DOUBLE_EQ(test.p(), 0.375);
  EXPECT_EQ(test.at_most(0.06), 0) << "not even five of five";
  EXPECT_DOUBLE_EQ(test.at_most(0.0625), 0.0625);
  EXPECT_DOUBLE_EQ(test.at_most(0.37), 0.0625);
  EXPECT_DOUBLE_EQ(test.at_most(test.p()), test.p());
  EXPECT_EQ(test.at_most(1), 1);
  EXPECT_EQ(SignFlip().at_most(0.99), 0) << "where nothing changed, nothing can show";
}

// Its definition: the probability, over all signs, of a p no larger.
TEST(SignFlip, AtMostIsTheDistributionOfP) {
  const std::vector<int> sizes = {3, 1, 1, 2, 2, 4};
  std::vector<double> p;
  for (unsigned signs = 0; signs < 64; ++signs) {
    SignFlip test;
    for (unsigned i = 0; i < 6; ++i) test.add((signs >> i & 1u) != 0 ? sizes[i] : -sizes[i]);
    p.push_back(test.p());
  }
  SignFlip any;
  for (const int size : sizes) any.add(size);
  for (const double limit : {0.01, 0.03125, 0.1, 0.25, 0.5, 0.9, 1.0}) {
    const auto n = std::count_if(p.begin(), p.end(), [&](double x) { return x <= limit + 1e-12; });
    EXPECT_NEAR(any.at_most(limit), static_cast<double>(n) / 64, 1e-12) << limit;
  }
}

std::vector<double> sines(int n, double shift) {
  std::vector<double> out;
  for (int i = 1; i <= n; ++i) out.push_back(std::sin(i) + shift);
  return out;
}
std::vector<double> cosines(int n, double shift) {
  std::vector<double> out;
  for (int i = 1; i <= n; ++i) out.push_back(std::cos(i) + shift);
  return out;
}

TEST(SignedRank, IsExactForFewDifferences) {
  // R: wilcox.test(c(1.1,2.3,-0.4,3.1,0.9,-1.7,2.8,4.0)): V = 31, p-value 0.078125
  const SignedRank eight =
      wilcoxon_signed_rank(std::vector<double>{1.1, 2.3, -0.4, 3.1, 0.9, -1.7, 2.8, 4.0});
  EXPECT_TRUE(eight.exact);
  EXPECT_EQ(eight.v, 31);
  EXPECT_DOUBLE_EQ(eight.p, 0.078125);
  EXPECT_DOUBLE_EQ(eight.least_p, 2.0 / 256);
  // R: wilcox.test(sin(1:49) + 0.2): V = 809
  const SignedRank many = wilcoxon_signed_rank(sines(49, 0.2));
  EXPECT_TRUE(many.exact);
  EXPECT_EQ(many.v, 809);
  EXPECT_NEAR(many.p, 0.050628584741343, 1e-12);
}

TEST(SignedRank, IsNormalWithTiesZerosOrManyDifferences) {
  // R: wilcox.test(c(1,2,-2,3,0,3,4,-1,5,2,0,6)): V = 49.5
  const SignedRank ties =
      wilcoxon_signed_rank(std::vector<double>{1, 2, -2, 3, 0, 3, 4, -1, 5, 2, 0, 6});
  EXPECT_FALSE(ties.exact);
  EXPECT_EQ(ties.n, 10);
  EXPECT_EQ(ties.v, 49.5);
  EXPECT_NEAR(ties.p, 0.0278018301200725, 1e-12);
  // R: 2 * pnorm(-(10 * 11 / 4 - 0.5) / sqrt(10 * 11 * 21 / 24 - sum(t^3 - t) / 48)), t of its ties
  EXPECT_NEAR(ties.least_p, 0.00572937640462699, 1e-12);
  // R: wilcox.test(sin(1:60) + 0.2): V = 1246
  const SignedRank many = wilcoxon_signed_rank(sines(60, 0.2));
  EXPECT_EQ(many.v, 1246);
  EXPECT_NEAR(many.p, 0.0149738959363159, 1e-12);
}

TEST(SignedRank, SeesNothingInNothing) {
  EXPECT_EQ(wilcoxon_signed_rank({}).p, 1);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector<double>{0, 0}).p, 1);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector<double>{0, 0}).least_p, 1);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector<double>{2.5}).p, 1);
}

TEST(MannWhitney, IsExactForFewValues) {
  // R: wilcox.test(a, b, conf.int = TRUE): W = 76, p 0.000781571369806664, [0.6, 2], estimate 1.3;
  //    1 - 2 * pwilcox(17, 9, 9) = 0.960016454134101
  const std::vector<double> a = {10.2, 11.5, 9.8, 10.9, 12.1, 11.0, 10.4, 11.8, 10.7},
                            b = {9.9, 9.1, 10.3, 9.5, 10.0, 8.8, 9.6, 10.1, 9.3};
  const RankSum r = mann_whitney(a, b);
  EXPECT_TRUE(r.exact);
  EXPECT_EQ(r.u, 76);
  EXPECT_NEAR(r.p, 0.000781571369806664, 1e-14);
  EXPECT_NEAR(r.shift.estimate, 1.3, 1e-12);
  EXPECT_NEAR(r.shift.lo, 0.6, 1e-12);
  EXPECT_NEAR(r.shift.hi, 2.0, 1e-12);
  EXPECT_NEAR(r.coverage, 0.960016454134101, 1e-12);
  // R: wilcox.test(sin(1:49), cos(1:49) + 0.3, conf.int = TRUE)
  const RankSum many = mann_whitney(sines(49, 0), cosines(49, 0.3));
  EXPECT_EQ(many.u, 910);
  EXPECT_NEAR(many.p, 0.0389650579878028, 1e-12);
  EXPECT_NEAR(many.shift.estimate, -0.292950434198, 1e-11);
  EXPECT_NEAR(many.shift.lo, -0.531455939328, 1e-11);
  EXPECT_NEAR(many.shift.hi, -0.0162049135506, 1e-11);
}

TEST(MannWhitney, IsNormalWithTiesOrManyValues) {
  // R: wilcox.test(c(1,2,2,3,5), c(2,4,4,6,7,8)): W = 5
  const RankSum ties =
      mann_whitney(std::vector<double>{1, 2, 2, 3, 5}, std::vector<double>{2, 4, 4, 6, 7, 8});
  EXPECT_FALSE(ties.exact);
  EXPECT_EQ(ties.u, 5);
  EXPECT_NEAR(ties.p, 0.079343683197715, 1e-12);
  // R: wilcox.test(sin(1:60), cos(1:55) + 0.3): W = 1287; d <- sort(outer(x, y, "-"));
  //    k <- floor(60*55/2 - qnorm(.975) * sqrt(60*55*116/12)); c(median(d), d[k], d[3300 - k + 1])
  const RankSum many = mann_whitney(sines(60, 0), cosines(55, 0.3));
  EXPECT_EQ(many.u, 1287);
  EXPECT_NEAR(many.p, 0.0423961617939684, 1e-12);
  EXPECT_NEAR(many.shift.estimate, -0.273682218236262, 1e-12);
  EXPECT_NEAR(many.shift.lo, -0.462333620970847, 1e-12);
  EXPECT_NEAR(many.shift.hi, -0.00805711927866543, 1e-12);
  EXPECT_NEAR(many.coverage, 1 - 0.049065486198934, 1e-9);
}

TEST(MannWhitney, SaysHowLittleFewValuesCover) {
  // R: wilcox.test(c(1,2,3), c(4,5,6), conf.int = TRUE): p 0.1, [-5, -1], conf.level 0.9
  const RankSum r = mann_whitney(std::vector<double>{1, 2, 3}, std::vector<double>{4, 5, 6});
  EXPECT_DOUBLE_EQ(r.p, 0.1);
  EXPECT_EQ(r.shift.lo, -5);
  EXPECT_EQ(r.shift.hi, -1);
  EXPECT_EQ(r.shift.estimate, -3);
  EXPECT_DOUBLE_EQ(r.coverage, 0.9);
  const RankSum same = mann_whitney(std::vector<double>{2, 2}, std::vector<double>{2, 2, 2});
  EXPECT_EQ(same.p, 1);
  EXPECT_EQ(same.shift.estimate, 0);
  EXPECT_EQ(mann_whitney(std::vector<double>{1}, std::vector<double>{2}).p, 1);
}

TEST(RankCorrelation, EqualsPublishedValues) {
  // Without ties: hours of television against IQ, Wikipedia, "Spearman's rank correlation
  // coefficient", −29/165.
  const std::vector<double> iq = {106, 100, 86, 101, 99, 103, 97, 113, 112, 110};
  const std::vector<double> tv = {7, 27, 2, 50, 28, 29, 20, 12, 6, 17};
  EXPECT_NEAR(*rank_correlation(iq, tv), -29.0 / 165, 1e-15);
  // With ties, SciPy's documentation: spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]).
  const std::vector<double> x = {1, 2, 3, 4, 5}, y = {5, 6, 7, 8, 7};
  EXPECT_NEAR(*rank_correlation(x, y), 0.8207826816681233, 1e-15);
}

TEST(RankCorrelation, IsNotKnownWhereNothingVaries) {
  const std::vector<double> x = {1, 2, 3}, same = {4, 4, 4}, one = {1};
  EXPECT_FALSE(rank_correlation(x, same));
  EXPECT_FALSE(rank_correlation(one, one));
  EXPECT_FALSE(rank_correlation({}, {}));
  EXPECT_EQ(*rank_correlation(x, x), 1);
}

TEST(Holm, EqualsR) {
  // R: p.adjust(c(0.04, 0.001, 0.5, 0.013, 0.013), "holm") = 0.08 0.005 0.5 0.052 0.052
  const auto five = holm(std::vector<double>{0.04, 0.001, 0.5, 0.013, 0.013});
  const std::vector<double> expected = {0.08, 0.005, 0.5, 0.052, 0.052};
  ASSERT_EQ(five.size(), expected.size());
  for (std::size_t i = 0; i < five.size(); ++i) EXPECT_NEAR(five[i], expected[i], 1e-15);
  // R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") = 0.04 0.06 0.06 0.06
  const auto four = holm(std::vector<double>{0.01, 0.02, 0.03, 0.04});
  EXPECT_NEAR(four[0], 0.04, 1e-15);
  for (const std::size_t i : {1, 2, 3}) EXPECT_NEAR(four[i], 0.06, 1e-15);
  EXPECT_TRUE(holm({}).empty());
  EXPECT_EQ(holm(std::vector<double>{0.7, 0.8})[0], 1);
}

}  // namespace
}  // namespace assay
