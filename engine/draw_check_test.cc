#include "engine/draw_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "engine/planted_fault.h"

namespace assay::engine {
namespace {

using Ratios = std::array<double, kDrawAlternatives.size()>;

const std::vector<float> kLogits = {1.5f, -0.5f, 3.0f, 0.25f, 2.0f, -4.0f};

DrawFigures see_all(const SamplingParams& params, const std::vector<int>& taken) {
  DrawCheck check(params);
  for (const int id : taken) check.see(kLogits, {}, id);
  return check.figures();
}

void expect_near(const DrawFigures& figures, const Ratios& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(figures.log_ratio[i], expected[i], 1e-7) << kDrawAlternatives[i];
}

// numpy: x = logits / T; p = exp(x), sorted, filtered, normalised; q = p**e / sum(p**e) for
// e = 4, 2, 1.25, 0.75, 0.5; the mean of 2u − 1, of 6u² − 6u + 1 over [cumsum before, cumsum] by
// quadrature; np.log of each ratio, summed over the tokens taken.
TEST(DrawCheck, RatiosAreThoseOfTheAlternatives) {
  const DrawFigures figures = see_all({.temperature = 0.6}, {2, 0, 4, 3});
  EXPECT_EQ(figures.n_drawn, 4);
  EXPECT_EQ(figures.n_impossible, 0);
  expect_near(figures,
              {-25.254979535, -7.91629337,  -1.823364017, 1.606799999, 2.851813249, -4.756966616,
               -0.845647995,  -0.251171927, 1.505991321,  0.625230866, 0.227488623, 1.234176131,
               0.495108008,   -3.319425602, -0.642768259, 0.742739539, 0.303780723, -1.685374867,
               -0.39019676,   -6.907755279, -1.070024832});
}

TEST(DrawCheck, RatiosAreOverWhatTheFiltersKeep) {
  expect_near(see_all({.temperature = 0.8, .top_p = 0.9}, {2, 0, 2}),
              {-4.553156573, -1.082534802, -0.175051484, 0.084403126,  0.063450978,  -1.144577748,
               -0.136666268, -0.033412957, -0.052913195, 0.045235616,  0.023530292,  0.264083775,
               0.118797744,  -0.798753759, -0.166862015, -0.563814146, -0.170866133, 0.43932495,
               0.157410532,  -4.605170186, -0.713349888});
  expect_near(see_all({.temperature = 1.3, .top_k = 4, .min_p = 0.2}, {4, 2, 0}),
              {-4.204892072, -1.014964111, -0.197812023, 0.155474052,  0.266784838,  -1.44165765,
               -0.282704286, -0.082244577, 0.350594206,  0.189036235,  0.072052656,  0.09249544,
               0.055341021,  -0.403464761, -0.086671932, -0.556267609, -0.166222939, 0.421976904,
               0.151919773,  -4.605170186, -0.713349888});
}

// numpy: log(c * overlap / width / p + 1 - c), summed, of tokens whose intervals agree: the second
// of two equal ones holds u in [0.5, 1), where token 4 has [0.7787, 0.9258).
TEST(DrawCheck, AStuckGeneratorIsFollowedThroughTheIntervalsThatAgree) {
  DrawCheck check({.temperature = 0.6});
  check.see(kLogits, {}, 4);
  check.see(std::vector<float>{0, 0}, {}, 1);
  check.see(kLogits, {}, 4);
  EXPECT_NEAR(check.figures().log_ratio[19], 2.4694430934561677, 1e-12) << kDrawAlternatives[19];
  EXPECT_NEAR(check.figures().log_ratio[20], 1.2701854542131834, 1e-12) << kDrawAlternatives[20];
}

TEST(DrawCheck, GreedyRequestsDrawNothing) { EXPECT_EQ(see_all({}, {2, 2}).n_drawn, 0); }

TEST(DrawCheck, ATokenThatTheFiltersExcludeIsImpossible) {
  EXPECT_EQ(see_all({.temperature = 1, .top_k = 2}, {2, 0}).n_impossible, 1);
  EXPECT_EQ(see_all({.temperature = 1, .top_p = 0.5}, {4}).n_impossible, 1);
  EXPECT_EQ(see_all({.temperature = 1, .min_p = 0.5}, {0}).n_impossible, 1);
  EXPECT_EQ(see_all({.temperature = 0.01}, {5}).n_impossible, 1) << "p = e^-700";
}

TEST(DrawCheck, RepetitionPenaltyIsPartOfWhatWasAskedFor) {
  DrawCheck check({.temperature = 0.5, .repetition_penalty = 1.5});
  check.see(kLogits, std::vector<int>{2, 2, 1}, 4);
  // The same as with the penalised logits: 3 / 1.5 and -0.5 * 1.5.
  DrawCheck same({.temperature = 0.5});
  same.see(std::vector<float>{1.5f, -0.75f, 2.0f, 0.25f, 2.0f, -4.0f}, {}, 4);
  for (std::size_t i = 0; i < kDrawAlternatives.size(); ++i)
    EXPECT_NEAR(check.figures().log_ratio[i], same.figures().log_ratio[i], 1e-12);
}

// What makes the check exact: under the distribution asked for each ratio has expectation 1, here
// summed over every token of a step, after a first step that gives the serial ones something to
// follow.
TEST(DrawCheck, EveryRatioHasExpectationOne) {
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 0.6}, SamplingParams{.temperature = 1.7, .top_p = 0.95},
        SamplingParams{.temperature = 0.9, .top_k = 3},
        SamplingParams{.temperature = 1, .min_p = 0.1}}) {
    const DrawFigures first = see_all(params, {4});
    // p of each token, from the sampler: the share of u that takes it.
    std::array<double, 6> p{};
    constexpr int kSteps = 1 << 20;
    for (int i = 0; i < kSteps; ++i)
      p[static_cast<std::size_t>(sample_at(kLogits, {}, params, (i + 0.5) / kSteps).id)] +=
          1.0 / kSteps;
    for (std::size_t k = 0; k < kDrawAlternatives.size(); ++k) {
      double expectation = 0;
      for (int id = 0; id < 6; ++id)
        if (p[static_cast<std::size_t>(id)] > 0)
          expectation += p[static_cast<std::size_t>(id)] *
                         std::exp(see_all(params, {4, id}).log_ratio[k] - first.log_ratio[k]);
      EXPECT_NEAR(expectation, 1, 1e-4) << kDrawAlternatives[k] << " at " << params.temperature;
    }
  }
}

// log of the mean over the alternatives: what harness/sampler_check pools.
double evidence(const DrawFigures& figures) {
  double sum = 0;
  for (const double l : figures.log_ratio) sum += std::exp(l);
  return std::log(sum / static_cast<double>(figures.log_ratio.size()));
}

DrawFigures draw(const PlantedFault& fault, int n, std::uint64_t seed = 1) {
  const SamplingParams params{.temperature = 0.6};
  DrawCheck check(params);
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(n); ++i)
    check.see(*sample_with_fault(fault, kLogits, {.params = params, .key = {seed, 1, i}}).place);
  return check.figures();
}

TEST(DrawCheck, AnHonestGeneratorGivesNoEvidenceAndPlantedFaultsDo) {
  using Kind = PlantedFault::Kind;
  // P(evidence ≥ log 20) ≤ 1/20 for an honest one; of 100 seeds 13 or more exceed it with
  // probability below 0.002 (R: 1 - pbinom(12, 100, 0.05) = 0.00146).
  int n_above = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed)
    n_above += evidence(draw({}, 300, seed)) >= std::log(20.0);
  EXPECT_LT(n_above, 13);
  const double needed = std::log(1e6);
  EXPECT_GT(evidence(draw({.kind = Kind::kGreedyDraws}, 300)), needed);
  EXPECT_GT(evidence(draw({.kind = Kind::kStuckDraws}, 300)), needed);
  EXPECT_GT(evidence(draw({.kind = Kind::kBiasedDraws, .strength = 1}, 300)), needed);
  EXPECT_LT(evidence(draw({.kind = Kind::kBiasedDraws, .strength = 0.02}, 300)), needed)
      << "a bias this small cannot be told from chance so soon";
}

}  // namespace
}  // namespace assay::engine
