#include "harness/metrics.h"

#include <gtest/gtest.h>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

std::vector<const Sample*> pointers(const std::vector<Sample>& samples) {
  std::vector<const Sample*> out;
  for (const Sample& s : samples) out.push_back(&s);
  return out;
}

const Group& find(const std::vector<Group>& groups, const std::string& arm,
                  const std::string& language, const std::string& kind) {
  for (const Group& g : groups)
    if (g.arm == arm && g.language == language && g.kind == kind && g.gated) return g;
  throw std::runtime_error("no such group");
}

Sample open_sample(std::string id) {
  Sample s = made_sample(std::move(id), "x", "ja", Correctness::kNotJudged);
  s.outcome.termination = Termination::kNoClose;
  s.finish = "length";
  s.n_thinking_tokens = 640;
  return s;
}

TEST(Metrics, TheSameProblemInThreeLanguagesIsOneCluster) {
  std::vector<Sample> clustered, singles;
  for (int i = 0; i < 30; ++i) {
    const auto correct = i / 3 % 2 == 0 ? Correctness::kCorrect : Correctness::kWrong;
    clustered.push_back(made_sample("a" + std::to_string(i), std::to_string(i / 3), "ja", correct));
    singles.push_back(made_sample("a" + std::to_string(i), std::to_string(i), "ja", correct));
  }
  const Rate three = rate_of(GateMetric::kAccuracy, pointers(clustered));
  const Rate one = rate_of(GateMetric::kAccuracy, pointers(singles));
  EXPECT_EQ(three.n_clusters, 10);
  EXPECT_EQ(one.n_clusters, 30);
  EXPECT_DOUBLE_EQ(three.value.estimate, one.value.estimate);
  EXPECT_GT(three.value.hi - three.value.lo, 1.5 * (one.value.hi - one.value.lo));
}

TEST(Metrics, AnErrorIsNeverAZero) {
  std::vector<Sample> samples = {made_sample("a", "1", "ja", Correctness::kCorrect),
                                 made_sample("b", "2", "ja", Correctness::kNotJudged)};
  samples[1].outcome.termination = Termination::kError;
  samples[1].finish = "";
  EXPECT_EQ(rate_of(GateMetric::kAccuracy, pointers(samples)).n, 1);
  EXPECT_DOUBLE_EQ(rate_of(GateMetric::kAccuracy, pointers(samples)).value.estimate, 1);
  EXPECT_EQ(rate_of(GateMetric::kError, pointers(samples)).n_true, 1);
  EXPECT_EQ(rate_of(GateMetric::kError, pointers(samples)).n, 2);
}

TEST(Metrics, TruncationLowersAccuracyButNotThatOfAnswers) {
  const std::vector<Sample> samples = {made_sample("a", "1", "ja", Correctness::kCorrect),
                                       open_sample("b")};
  const auto groups = summarise(samples);
  const Group& all = find(groups, "thinking", "", "");
  EXPECT_DOUBLE_EQ(all.accuracy.value.estimate, 0.5);
  EXPECT_DOUBLE_EQ(all.accuracy_answered, 1);
  EXPECT_EQ(all.classes.at("no_close"), 1);
  EXPECT_EQ(all.finish.at("length"), 1);
  EXPECT_EQ(all.n_thinking_censored, 1);
  EXPECT_EQ(all.thinking_tokens.n, 1);  // the open one is a lower bound, not a length
}

TEST(Metrics, AStrayTagIsNotAClosedThinking) {
  std::vector<Sample> samples = {made_sample("a", "1", "ja", Correctness::kCorrect)};
  EXPECT_EQ(rate_of(GateMetric::kClosed, pointers(samples)).n_true, 1);
  samples[0].n_stray_tags = 1;
  EXPECT_EQ(rate_of(GateMetric::kClosed, pointers(samples)).n_true, 0);
}

TEST(Metrics, RowsAreTotalThenLanguagesThenKinds) {
  std::vector<Sample> samples = {made_sample("a", "1", "ja", Correctness::kCorrect),
                                 made_sample("b", "1", "en", Correctness::kWrong),
                                 made_sample("c", "2", "en", Correctness::kCorrect)};
  samples[2].kind = "mul";
  const auto groups = summarise(samples);
  std::vector<std::string> rows;
  for (const Group& g : groups) rows.push_back(g.language + "/" + g.kind);
  EXPECT_EQ(rows, (std::vector<std::string>{"/", "ja/", "en/", "/add", "/mul", "ja/add", "en/add",
                                            "en/mul"}));
  EXPECT_EQ(find(groups, "thinking", "en", "").n, 2);
}

TEST(Metrics, UngatedSamplesHaveRowsOfTheirOwn) {
  std::vector<Sample> samples = {made_sample("a", "1", "ja", Correctness::kCorrect),
                                 made_sample("b", "2", "ja", Correctness::kWrong)};
  samples[1].gated = false;
  const auto groups = summarise(samples);
  EXPECT_DOUBLE_EQ(find(groups, "thinking", "", "").accuracy.value.estimate, 1);
  EXPECT_EQ(std::count_if(groups.begin(), groups.end(), [](const Group& g) { return !g.gated; }),
            4);
}

// R 4.2, survival 3.5:
//   f <- survfit(Surv(c(9,13,13,18,23,28,31,34,45,48,161), c(1,1,0,1,1,0,1,1,0,1,0)) ~ 1,
//                conf.type = "log-log"); summary(f, times = c(10, 20, 32, 50))
// (the maintained group of R's data set aml).
TEST(Metrics, TheSurvivalCurveIsKaplanAndMeiers) {
  const std::vector<Thought> thoughts = {{9, true},   {13, true},  {13, false}, {18, true},
                                         {23, true},  {28, false}, {31, true},  {34, true},
                                         {45, false}, {48, true},  {161, false}};
  const int at[] = {10, 20, 32, 50};
  const auto curve = survival(thoughts, at);
  ASSERT_EQ(curve.size(), 4u);
  const double share[] = {0.9090909091, 0.7159090909, 0.4909090909, 0.1840909091};
  const double lo[] = {0.50808020577, 0.35019038591, 0.16733090978, 0.01173848012};
  const double hi[] = {0.9866738227, 0.8990239742, 0.7533997904, 0.5250148427};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(curve[i].n_tokens, at[i]);
    EXPECT_NEAR(curve[i].share, share[i], 1e-6) << at[i];
    EXPECT_NEAR(curve[i].lo, lo[i], 1e-6) << at[i];
    EXPECT_NEAR(curve[i].hi, hi[i], 1e-6) << at[i];
  }
}

TEST(Metrics, ThinkingThatWasCutIsALowerBoundInTheCurve) {
  // Two of four were cut at 100: of what is known, half had closed before.
  const std::vector<Thought> thoughts = {{20, true}, {40, true}, {100, false}, {100, false}};
  const int at[] = {10, 50, 100, 1000};
  const auto curve = survival(thoughts, at);
  ASSERT_EQ(curve.size(), 3u) << "nothing is known of later than the last";
  EXPECT_EQ(curve[0].share, 1);
  EXPECT_NEAR(curve[0].lo, wilson(4, 4).lo, 1e-12) << "none of four says little of others";
  EXPECT_EQ(curve[1].share, 0.5);
  EXPECT_EQ(curve[2].share, 0.5);
  EXPECT_EQ(curve[2].n_at_risk, 0);
}

TEST(Metrics, WhatNobodyJudgesIsInNoAccuracy) {
  std::vector<Sample> samples = {made_sample("a", "a", "ja", Correctness::kCorrect),
                                 made_sample("b", "b", "ja", Correctness::kNotJudged)};
  samples[1].scoring = Scoring::kNone;
  EXPECT_EQ(rate_of(GateMetric::kAccuracy, pointers(samples)).n, 1);
  EXPECT_EQ(rate_of(GateMetric::kAnswered, pointers(samples)).n_true, 2);
}

TEST(Metrics, AClosingByForceIsNotTheModelsOwn) {
  std::vector<Sample> samples = {made_sample("a", "a", "ja", Correctness::kCorrect)};
  samples[0].forced_close = true;
  samples[0].n_thinking_tokens = 24;
  EXPECT_EQ(rate_of(GateMetric::kClosed, pointers(samples)).n_true, 0);
  EXPECT_EQ(rate_of(GateMetric::kAnswered, pointers(samples)).n_true, 1);
  const auto groups = summarise(samples);
  EXPECT_EQ(groups.front().n_forced, 1);
  EXPECT_EQ(groups.front().n_thinking_censored, 1);
  EXPECT_EQ(groups.front().thinking_survival.front().share, 1);
}

TEST(Metrics, LanguageAndLoopsAreSharesOfWhatCanBeTold) {
  std::vector<Sample> samples = {made_sample("a", "a", "ja", Correctness::kCorrect),
                                 made_sample("b", "b", "ja", Correctness::kCorrect),
                                 made_sample("c", "c", "ja", Correctness::kWrong)};
  samples[0].language_right = true;
  samples[1].language_right = false;
  samples[1].outcome.degeneration = Degeneration::kLanguageDrift;
  samples[2].outcome.degeneration = Degeneration::kLoopNear;
  EXPECT_EQ(rate_of(GateMetric::kLanguage, pointers(samples)).n, 2);
  EXPECT_EQ(rate_of(GateMetric::kLanguage, pointers(samples)).n_true, 1);
  EXPECT_EQ(rate_of(GateMetric::kNoLoop, pointers(samples)).n_true, 2);
}

TEST(Metrics, ANeedleGridHasACellPerLengthAndDepth) {
  std::vector<Sample> samples;
  for (int i = 0; i < 6; ++i) {
    Sample s = made_sample(std::to_string(i), std::to_string(i), "ja",
                           i % 3 == 0 ? Correctness::kWrong : Correctness::kCorrect);
    s.scoring = Scoring::kNeedle;
    s.kind = i < 4 ? "single" : "multi_query";
    s.gated = i < 4;
    s.recipe = {{"n_tokens", 1024},
                {"depth", i % 2 == 0 ? 0.0 : 0.5},
                {"haystack_language", "ja"},
                {"needle_language", "ja"},
                {"question_language", "ja"}};
    if (i == 0) s.reask = Reask{{}, "38216", Correctness::kCorrect};
    samples.push_back(std::move(s));
  }
  const auto cells = needle_grid(samples);
  ASSERT_EQ(cells.size(), 6u);
  EXPECT_EQ(cells[0].kind, "");
  EXPECT_EQ(cells[0].n, 2);
  EXPECT_EQ(cells[0].n_correct, 1);
  EXPECT_EQ(cells[0].n_reask_correct, 1);
  EXPECT_EQ(cells[1].depth, 0.5);
  EXPECT_EQ(cells[0].language, "ja");
  samples[1].recipe["haystack_language"] = "en";
  const auto crossed = needle_grid(samples);
  EXPECT_TRUE(std::any_of(crossed.begin(), crossed.end(), [](const NeedleCell& c) {
    return c.language == "en.ja.ja";
  })) << "a crossed cell is one of its own";
}

}  // namespace
}  // namespace assay::harness
