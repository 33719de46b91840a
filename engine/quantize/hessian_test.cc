#include "engine/quantize/hessian.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/quantize/quantize_testing.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Hessian hessian_of(const std::vector<float>& x, int dim) {
  ThreadPool pool(1);
  Hessian h(dim);
  h.add(x.data(), static_cast<int>(x.size()) / dim, pool);
  return h;
}

TEST(Hessian, IsTheSumOfOuterProducts) {
  ThreadPool pool(2);
  Hessian h(2);
  const std::vector<float> x = {1, 2, 3, -1};
  h.add(x.data(), 1, pool);
  h.add(x.data() + 2, 1, pool);
  EXPECT_EQ(h.at(0, 0), 10);
  EXPECT_EQ(h.at(0, 1), -1);
  EXPECT_EQ(h.at(1, 0), -1);
  EXPECT_EQ(h.at(1, 1), 5);
  EXPECT_EQ(h.n_samples(), 2);
}

// Small integers: every sum is exact, so any wrong tile or token shows.
TEST(Hessian, IsExactOnIntegersAcrossTilesAndTokenBlocks) {
  constexpr int kDim = 300, kTokens = 600;
  std::vector<float> x(kDim * kTokens);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(std::floor(9 * uniform_at(1, 0, i))) - 4;
  const Hessian h = hessian_of(x, kDim);
  for (int i = 0; i < kDim; i += 37)
    for (int j = 0; j < kDim; ++j) {
      double sum = 0;
      for (int t = 0; t < kTokens; ++t) sum += x[t * kDim + i] * x[t * kDim + j];
      ASSERT_EQ(h.at(i, j), sum) << i << ", " << j;
    }
}

TEST(Hessian, HasTheSameBitsForAnyThreadCount) {
  const std::vector<float> x = correlated_inputs(100, 600, 5, 3);
  ThreadPool one(1), three(3);
  Hessian a(600), b(600);
  a.add(x.data(), 100, one);
  b.add(x.data(), 100, three);
  for (int i = 0; i < 600; ++i)
    for (int j = 0; j < 600; ++j) ASSERT_EQ(a.at(i, j), b.at(i, j));
}

TEST(Shrink, WeighsAnExpertByItsSamples) {
  const Hessian expert = hessian_of({2, 0, 2, 0}, 2);                   // mean diagonal 4, 0
  const Hessian layer = hessian_of({0, 2, 0, 2, 0, 2, 0, 2, 0, 2}, 2);  // 0, 4
  const auto mean = shrink(expert, layer, 6);  // the expert counts 2 / (2 + 6)
  ASSERT_TRUE(mean.has_value()) << mean.error().message;
  EXPECT_DOUBLE_EQ(mean->at(0, 0), 1);
  EXPECT_DOUBLE_EQ(mean->at(1, 1), 3);
  EXPECT_EQ(mean->n_samples(), 1);
  EXPECT_DOUBLE_EQ(shrink(expert, layer, 0)->at(0, 0), 4);
  EXPECT_DOUBLE_EQ(shrink(Hessian(2), layer, 6)->at(1, 1), 4) << "no sample: the layer";
  EXPECT_THAT(shrink(expert, Hessian(3), 6).error().message, HasSubstr("dimension 2, its layer's"));
  EXPECT_FALSE(shrink(expert, Hessian(2), 6).has_value());
}

TEST(Factor, MatchesTheHandComputedOne) {
  // H = [[4, 2], [2, 1]] + 1.6 I (64 % of the mean diagonal 2.5): R = [[a, b], [0, c]] with
  // c² = 2.6, b c = 2, a² + b² = 5.6.
  const auto f = factor(hessian_of({2, 1}, 2), 0.64, "x");
  ASSERT_TRUE(f.has_value()) << f.error().message;
  EXPECT_DOUBLE_EQ(f->damping(), 1.6);
  EXPECT_FLOAT_EQ(f->at(1, 1), static_cast<float>(std::sqrt(2.6)));
  EXPECT_FLOAT_EQ(f->at(0, 1), static_cast<float>(2 / std::sqrt(2.6)));
  EXPECT_FLOAT_EQ(f->at(0, 0), static_cast<float>(std::sqrt(5.6 - 4 / 2.6)));
  EXPECT_EQ(f->at(1, 0), 0);
}

TEST(Factor, TimesItsTransposeIsTheDampedHessianInEveryPanel) {
  constexpr int kDim = 300;
  const Hessian h = hessian_of(correlated_inputs(400, kDim, 6, 5), kDim);
  const auto f = factor(h, 0.01, "x");
  ASSERT_TRUE(f.has_value()) << f.error().message;
  double mean = 0;
  for (int i = 0; i < kDim; ++i) mean += h.at(i, i) / kDim;
  EXPECT_NEAR(f->damping(), 0.01 * mean, 1e-9 * mean);
  double worst = 0;
  for (int i = 0; i < kDim; i += 7)
    for (int j = 0; j < kDim; ++j) {
      double sum = 0;
      for (int k = std::max(i, j); k < kDim; ++k)
        sum += static_cast<double>(f->at(i, k)) * f->at(j, k);
      const double expected = h.at(i, j) + (i == j ? f->damping() : 0);
      // R is rounded to float once: 2^-24 in each factor of every product.
      worst = std::max(worst, std::abs(sum - expected) / std::sqrt(h.at(i, i) * h.at(j, j)));
    }
  EXPECT_LT(worst, 4 * 0x1p-24);
}

TEST(Factor, DeadColumnsCoupleToNothing) {
  const auto f = factor(hessian_of({2, 0, 1, 2, 0, 3}, 3), 0.01, "x");
  ASSERT_TRUE(f.has_value()) << f.error().message;
  EXPECT_DOUBLE_EQ(f->damping(), 0.01 * (8 + 10) / 2) << "the mean is over live columns";
  EXPECT_FLOAT_EQ(f->at(1, 1), static_cast<float>(std::sqrt(f->damping())));
  EXPECT_EQ(f->at(0, 1), 0);
  EXPECT_EQ(f->at(1, 2), 0);
  const auto zeros = factor(Hessian(3), 0.01, "x");
  ASSERT_TRUE(zeros.has_value());
  EXPECT_EQ(zeros->at(2, 2), 1);
}

TEST(Factor, RaisesTheDampingAndSaysSo) {
  // 1e-17 of the diagonal vanishes beside it, and one sample in three dimensions is singular.
  const auto f = factor(hessian_of({1, 1, 1}, 3), 1e-17, "x");
  ASSERT_TRUE(f.has_value()) << f.error().message;
  EXPECT_GT(f->damping_share(), 1e-17);
}

TEST(Factor, ErrorsNameTheMatrix) {
  const auto nan = factor(hessian_of({1, std::nanf("")}, 2), 0.01, "layers.3.up_proj");
  ASSERT_FALSE(nan.has_value());
  EXPECT_THAT(nan.error().message, AllOf(HasSubstr("layers.3.up_proj"), HasSubstr("nan")));
  const auto singular = factor(hessian_of({1e8f, 1e8f, 1e8f}, 3), 1e-30, "layers.3.up_proj");
  ASSERT_FALSE(singular.has_value());
  EXPECT_THAT(singular.error().message,
              AllOf(HasSubstr("layers.3.up_proj"), HasSubstr("not positive definite")));
}

}  // namespace
}  // namespace assay::engine
