#include "harness/sampler_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using ::testing::HasSubstr;

Sample drawn(std::map<std::string, double> log_ratio, int n_drawn = 100, int n_impossible = 0) {
  Sample s = made_sample("en-1", "c1", "en", Correctness::kCorrect);
  s.ids = {1, 2, 3};
  s.draws = DrawFigures{n_drawn, n_impossible, std::move(log_ratio)};
  return s;
}

// scipy: (logsumexp([3.5 + 20.25, -1.25 + 0.5]) - log(2)) / log(10)
TEST(SamplerCheck, EvidenceIsTheMeanOfTheRatiosOfAllDrawsTogether) {
  const std::vector<Sample> samples = {drawn({{"x", 3.5}, {"y", -1.25}}),
                                       drawn({{"x", 20.25}, {"y", 0.5}}, 50),
                                       made_sample("en-2", "c2", "en", Correctness::kCorrect)};
  const SamplerCheck check = check_sampler(samples);
  EXPECT_EQ(check.n_samples, 2);
  EXPECT_EQ(check.n_drawn, 150);
  EXPECT_NEAR(check.log10_evidence, 10.013463949548196, 1e-12);
  EXPECT_EQ(check.likeliest, "x");
  EXPECT_NEAR(check.log10_likeliest, 10.314493945202232, 1e-12);
  EXPECT_FALSE(check.holds());
  EXPECT_THAT(check.text(), HasSubstr("10^10.0 times likelier"));
}

TEST(SamplerCheck, LittleEvidenceHolds) {
  const SamplerCheck check = check_sampler(std::vector<Sample>{drawn({{"x", 13}, {"y", -50}})});
  EXPECT_TRUE(check.holds()) << check.log10_evidence;
  EXPECT_THAT(check.text(), HasSubstr("as the sampling asked for"));
  EXPECT_TRUE(check_sampler({}).holds());
  EXPECT_FALSE(check_sampler({}).has_looked());
}

TEST(SamplerCheck, AnImpossibleTokenOrAReplyThatWasNotDrawnIsEnough) {
  EXPECT_FALSE(check_sampler(std::vector<Sample>{drawn({{"x", 0}}, 100, 1)}).holds());
  const SamplerCheck greedy = check_sampler(std::vector<Sample>{drawn({}, 0)});
  EXPECT_FALSE(greedy.holds());
  EXPECT_THAT(greedy.text(), HasSubstr("the temperature is lost"));
  Sample nothing = drawn({}, 0);  // NaN at its first token
  nothing.ids.clear();
  EXPECT_TRUE(check_sampler(std::vector<Sample>{nothing}).holds());
}

TEST(SamplerCheck, DrawsAreOnRecordAndGreedyRecordsKeepTheirHash) {
  const Sample s = drawn({{"x", 3.5}, {"y", -1.25}}, 7, 1);
  const auto again = parse_sample(to_json(s), "here");
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->draws, s.draws);
  EXPECT_FALSE(to_json(made_sample("a", "c", "en", Correctness::kCorrect)).contains("draws"));
}

// Every planned sample, right, with draws.
std::vector<Sample> complete(const Plan& plan, double evidence) {
  std::vector<Sample> samples;
  for (const PlanItem& item : plan.items) {
    Sample s =
        made_sample(plan.case_of(item).id, plan.case_of(item).cluster, plan.case_of(item).language,
                    Correctness::kCorrect, plan.arm_of(item).name);
    s.ids = {1};
    s.draws = DrawFigures{1, 0, {{"x", samples.empty() ? evidence : 0}}};
    samples.push_back(std::move(s));
  }
  return samples;
}

TEST(SamplerCheck, ARunWhoseSamplerDrawsSomethingElseIsARegression) {
  const Plan plan = small_plan();
  const Verdict honest = judge(plan, complete(plan, 5));
  EXPECT_EQ(honest.state, VerdictState::kPass) << to_json(honest).dump(1);
  EXPECT_TRUE(to_json(honest)["sampler"]["holds"]);
  const Verdict broken = judge(plan, complete(plan, 50));
  EXPECT_EQ(broken.state, VerdictState::kRegression);
  ASSERT_EQ(broken.problems.size(), 1u);
  EXPECT_THAT(broken.problems[0], HasSubstr("the sampler does not draw what it says"));
}

TEST(SamplerCheck, AGreedyRunSaysNothingOfTheSampler) {
  const Plan plan = small_plan();
  std::vector<Sample> samples = complete(plan, 0);
  for (Sample& s : samples) s.draws.reset();
  EXPECT_FALSE(to_json(judge(plan, samples)).contains("sampler"));
}

}  // namespace
}  // namespace assay::harness
