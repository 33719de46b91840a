#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace assay::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2}, {}, {}, {}).id, 1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3}, {}, {}, {}).id, 1);
}

TEST(Sampler, NonFiniteLogitsAreReportedNotSampled) {
  EXPECT_EQ(sample(std::vector<float>{1, kNan, 2}, {}, {}, {}).id, -1);
  EXPECT_EQ(sample(std::vector<float>{1, std::numeric_limits<float>::infinity()}, {},
                   {.temperature = 0.6}, {})
                .id,
            -1);
  EXPECT_EQ(sample(std::vector<float>{}, {}, {}, {}).id, -1);
}

TEST(Sampler, SamplesFollowTheTemperedDistribution) {
  const std::vector<float> logits = {0, 1, 2, -1};
  const double temperature = 0.6;
  std::vector<double> p;
  double sum = 0;
  for (const float l : logits) sum += p.emplace_back(std::exp(l / temperature));
  std::map<int, int> count;
  const int n = 20000;
  for (int i = 0; i < n; ++i)
    ++count[sample(logits, {}, {.temperature = temperature},
                   {.seed = 7, .stream = 3, .position = static_cast<std::uint64_t>(i)})
                .id];
  // Pearson's chi-square with 3 degrees of freedom: the 99.9 % quantile is 16.27 (R: qchisq(0.999,
  // 3)).
  double chi2 = 0;
  for (int id = 0; id < 4; ++id) {
    const double expected = n * p[id] / sum;
    chi2 += (count[id] - expected) * (count[id] - expected) / expected;
  }
  EXPECT_LT(chi2, 16.27);
}

TEST(Sampler, ATokenDependsOnSeedStreamAndPositionAlone) {
  const std::vector<float> logits(50, 0.0f);
  const SamplingParams params{.temperature = 1};
  const SampleKey key{.seed = 1, .stream = 2, .position = 3};
  const int id = sample(logits, {}, params, key).id;
  EXPECT_EQ(sample(logits, std::vector<int>{4, 5}, params, key).id, id);
  std::map<int, int> seen;
  for (std::uint64_t p = 0; p < 50; ++p)
    ++seen[sample(logits, {}, params, {.seed = 1, .stream = 2, .position = p}).id];
  EXPECT_GT(seen.size(), 15u);  // 50 draws from 50 equally likely ids: some 32 distinct ones
  EXPECT_NE(sample(logits, {}, params, {.seed = 2, .stream = 2, .position = 3}).id * 1000 +
                sample(logits, {}, params, {.seed = 3, .stream = 2, .position = 3}).id,
            id * 1001);
}

std::map<int, int> draw(const std::vector<float>& logits, const SamplingParams& params,
                        std::vector<int> history = {}) {
  std::map<int, int> count;
  for (std::uint64_t i = 0; i < 2000; ++i)
    ++count[sample(logits, history, params, {.position = i}).id];
  return count;
}

TEST(Sampler, TopKKeepsTheKMostLikely) {
  EXPECT_EQ(draw({0, 1, 2, 3}, {.temperature = 5, .top_k = 2}).size(), 2u);
  EXPECT_TRUE(draw({0, 1, 2, 3}, {.temperature = 5, .top_k = 2}).contains(2));
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesP) {
  // Probabilities 0.5, 0.3, 0.2.
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 0.45}).size(), 1u);
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 0.7}).size(), 2u);
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 0.9}).size(), 3u);
}

TEST(Sampler, MinPKeepsWhatReachesAShareOfTheMostLikely) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  EXPECT_EQ(draw(logits, {.temperature = 1, .min_p = 0.5}).size(), 2u);
  EXPECT_EQ(draw(logits, {.temperature = 1, .min_p = 0.7}).size(), 1u);
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  EXPECT_EQ(
      sample(std::vector<float>{2.0f, 1.9f}, std::vector<int>{0}, {.repetition_penalty = 1.1}, {})
          .id,
      1);
  EXPECT_EQ(
      sample(std::vector<float>{-1.9f, -2.0f}, std::vector<int>{0}, {.repetition_penalty = 1.1}, {})
          .id,
      1);
  EXPECT_EQ(sample(std::vector<float>{2.0f, 1.9f}, std::vector<int>{0, 0},
                   {.repetition_penalty = 1.05}, {})
                .id,
            0)
      << "a token counts once, however often it occurred";
  EXPECT_EQ(sample(std::vector<float>{2.0f, 1.9f}, std::vector<int>{-1, 2, 1 << 30, -1 << 31},
                   {.repetition_penalty = 1.1}, {})
                .id,
            0)
      << "ids outside the vocabulary are no token's";
}

TEST(Sampler, ReportsTheModelsOwnProbabilitiesWhateverTheSamplerDoes) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const std::vector<int> watched = {2, 1};
  const Sampled s = sample(logits, {}, {.temperature = 0.1, .top_k = 1}, {}, 2, watched);
  EXPECT_EQ(s.id, 0);
  EXPECT_NEAR(s.logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(s.top.size(), 2u);
  EXPECT_EQ(s.top[1].first, 1);
  EXPECT_NEAR(s.top[1].second, std::log(0.3), 1e-6);
  EXPECT_NEAR(s.watched_probability[0], 0.2, 1e-6);
  EXPECT_NEAR(s.watched_probability[1], 0.3, 1e-6);
}

}  // namespace
}  // namespace assay::engine
