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

}  // namespace
}  // namespace assay::harness
