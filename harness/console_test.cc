#include "harness/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "harness/compare.h"
#include "harness/step_counts.h"
#include "harness/table.h"
#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

Json small_run() {
  Plan plan = small_plan();
  plan.suites[0].gates[1].name = "思考が終わる";
  std::vector<Sample> samples;
  for (const PlanItem& item : plan.items) {
    const Case& c = plan.case_of(item);
    samples.push_back(
        made_sample(c.id, c.cluster, c.language, Correctness::kCorrect, plan.arm_of(item).name));
  }
  Json metrics = Json::array();
  for (const Group& g : summarise(samples)) metrics.push_back(to_json(g));
  return {{"verdict", to_json(judge(plan, samples))},
          {"metrics", metrics},
          {"provenance", {{"command", "assay run sums --model m"}}}};
}

TEST(Console, WidthCountsCellsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("日本"), 4);
  EXPECT_EQ(display_width("１８"), 4);
  EXPECT_EQ(display_width("ｱ"), 1);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width("≥ 97 %"), 6);
}

TEST(Console, ColumnsAlignWhateverTheScript) {
  const std::string text = render_console(small_run(), {});
  std::vector<int> columns;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (const auto at = line.find("≥"); at != std::string::npos)
      columns.push_back(display_width(line.substr(0, at)));
  ASSERT_EQ(columns.size(), 2u);
  // "100.0 %" is one cell longer than "75.0 %", and numbers are flush right.
  EXPECT_EQ(columns[0], columns[1] + 1);
}

TEST(Console, SaysTheVerdictWhereTheReportIsAndHowToRepeatIt) {
  const std::string text = render_console(small_run(), {false, "out/x/report.html"});
  EXPECT_THAT(text, HasSubstr("PASS"));
  EXPECT_THAT(text, HasSubstr("exit code 0"));
  EXPECT_THAT(text, HasSubstr("out/x/report.html"));
  EXPECT_THAT(text, HasSubstr("assay run sums --model m"));
}

TEST(Console, WhereNoThinkingClosedNoLengthIsKnown) {
  Json run = small_run();
  Json& g = run["metrics"][0];
  g["language"] = g["kind"] = "";
  g["closed"] = {{"estimate", 0.0}, {"lo", 0.0}, {"hi", 1.0}, {"n", 3}, {"n_true", 0}};
  g["thinking_tokens"] = {{"p50", 0.0},
                          {"p90", 0.0},
                          {"max", 0.0},
                          {"n", 0},
                          {"n_censored", 3},
                          {"n_forced", 0},
                          {"survival", {{{"n_tokens", 16}, {"share", 1.0}, {"n_at_risk", 3}}}}};
  const std::string text = render_console(run, {});
  EXPECT_THAT(text, HasSubstr("tokens p50 / p90 / max"));
  EXPECT_THAT(text, Not(HasSubstr("0 / 0 / 0")));
}

TEST(Console, AnEngineThatCountsItsStepsSaysHowTheyRanAndOnWhat) {
  Json run = small_run();
  run["timings"] = {{"wall_s", 1.5}, {"n_tokens", 9}};
  EXPECT_THAT(render_console(run, {}), Not(HasSubstr("launch by launch"))) << "a host's engine";
  run["timings"]["steps"] =
      to_json(engine::StepCounts{.n_direct = 30, .n_recorded = 4, .n_replayed = 812});
  run["provenance"]["target"] = {{"backend", "cuda"}, {"kernel", "sm_90 f32, graph"}};
  EXPECT_THAT(render_console(run, {}),
              ContainsRegex("steps +812 replayed as graphs, 4 recorded, 30 launch by launch "
                            ".cuda sm_90 f32, graph."));
  run["timings"]["steps"] = to_json(engine::StepCounts{.n_direct = 30, .n_beyond_graphs = 7});
  EXPECT_THAT(render_console(run, {}),
              HasSubstr("30 launch by launch, 7 of them because the memory for graphs is used up"));
}

TEST(Console, AComparisonShowsEveryRowAndMarksTheOneThatRegressed) {
  Comparison comparison;
  comparison.rows = {{.suite = "sums",
                      .arm = "thinking",
                      .metric = "accuracy",
                      .n = 80,
                      .n_base = 78,
                      .n_candidate = 60,
                      .n_regressed = 20,
                      .n_fixed = 2,
                      .difference = {-0.225, -0.32, -0.13},
                      .p_holm = 0.00012,
                      .verdict = RowVerdict::kRegression},
                     {.suite = "sums",
                      .arm = "thinking",
                      .language = "ja",
                      .metric = "closed",
                      .n = 40,
                      .n_base = 39,
                      .n_candidate = 40,
                      .n_fixed = 1,
                      .difference = {0.025, -0.01, 0.06},
                      .detectable = 9}};
  comparison.n_pairs = 80;
  comparison.n_same_tokens = 31;
  Json run = small_run();
  EXPECT_THAT(render_console(run, {}), Not(HasSubstr("against the baseline")));
  run["comparison"] = to_json(comparison);
  const std::string text = render_console(run, {});
  EXPECT_THAT(text,
              ContainsRegex("sums · thinking +80 +97.5 % +75.0 % +−22.5 .−32.0, −13.0. +20 / 2 "
                            "+0.00012 +regression +–"));
  EXPECT_THAT(text, ContainsRegex("sums · thinking · ja · closed +40 +97.5 % +100.0 % +.2.5 "
                                  ".−1.0, .6.0. +0 / 1 +1 +pass +−20.0"));
  EXPECT_THAT(text, HasSubstr("of 80 pairs; 31 replies have the same tokens"));
  const std::string coloured = render_console(run, {true, ""});
  EXPECT_THAT(coloured, HasSubstr("\x1b[31m−22.5 [−32.0, −13.0]\x1b[0m"));
  EXPECT_THAT(coloured, Not(HasSubstr("\x1b[31m+2.5")));
}

TEST(Console, ASuiteWithoutACaseSaysSoAndCountsNoGates) {
  Json run = small_run();
  const Json gate = run["verdict"]["gates"][0];
  for (int i = 0; i < 12; ++i) {
    run["verdict"]["gates"].push_back(gate);
    run["verdict"]["gates"].back()["suite"] = "facts";
    run["verdict"]["gates"].back()["state"] = "not_run";
  }
  const std::string text = render_console(run, {});
  EXPECT_THAT(text, ContainsRegex("– +facts +no case for its 12 gates"));
  EXPECT_THAT(text, HasSubstr("gates hold"));
  EXPECT_THAT(text, Not(HasSubstr("0 of 0")));
}

TEST(Console, ColourOnlyWhereItIsAskedFor) {
  EXPECT_THAT(render_console(small_run(), {false, ""}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_console(small_run(), {true, ""}), HasSubstr("\x1b[32m"));
}

}  // namespace
}  // namespace assay::harness
