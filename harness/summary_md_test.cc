#include "harness/summary_md.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "harness/compare.h"
#include "harness/complete_run.h"
#include "harness/step_counts.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Cells of a table's line: what stands between borders that no backslash precedes.
int n_cells(const std::string& line) {
  int n = -1;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\') {
      ++i;
    } else if (line[i] == '|') {
      ++n;
    }
  }
  return n;
}

void expect_tables_hold(const std::string& text) {
  int columns = 0;
  for (const std::string& line : lines_of(text)) {
    if (!line.starts_with("|")) {
      columns = 0;
      continue;
    }
    if (columns == 0) columns = n_cells(line);
    EXPECT_EQ(n_cells(line), columns) << line;
  }
}

// Those of both sides: `base` right, `now` wrong where `change` says.
Json compared(const std::vector<Sample>& base, const std::vector<Sample>& now) {
  Json run = complete_run(now);
  run["comparison"] = to_json(compare(base, now));
  run["comparison"]["baseline"] = {{"folder", "out/bf16"}};
  return run;
}

TEST(SummaryMd, SaysTheVerdictFirstAndHowToRepeatItLast) {
  const std::string text = render_summary(complete_run(full_samples()), "out/tonight");
  EXPECT_THAT(text, StartsWith("## ✅ PASS\n\nAll 2 gates passed over 14 samples."));
  EXPECT_THAT(text, HasSubstr("| sums | thinking | 7 | 100.0 %"));
  EXPECT_THAT(text, HasSubstr("Report: out/tonight/report.html"));
  EXPECT_TRUE(text.ends_with("```\nassay run sums --model m\n```\n")) << text;
  expect_tables_hold(text);
}

TEST(SummaryMd, StepsStandThereWhereTheEngineCountsThem) {
  Json run = complete_run(full_samples());
  EXPECT_THAT(render_summary(run, "out"), Not(HasSubstr("launch by launch")));
  run["timings"]["steps"] =
      to_json(engine::StepCounts{.n_direct = 3, .n_recorded = 1, .n_replayed = 40});
  EXPECT_THAT(render_summary(run, "out"),
              HasSubstr("steps: 40 replayed as graphs, 1 recorded, 3 launch by launch"));
}

TEST(SummaryMd, APassSaysWhatItCouldHaveSeen) {
  const std::vector<Sample> samples = full_samples();
  EXPECT_THAT(render_summary(complete_run(samples), "o"),
              HasSubstr("nearest to failing is sums/thinking ends: 0 of 7 failed, 1 more"));
  EXPECT_THAT(render_summary(compared(samples, samples), "o"),
              HasSubstr("sums/thinking: no drop could have shown in 7 pairs"));
}

TEST(SummaryMd, AFailedGateStandsThereWithLimitAndInterval) {
  std::vector<Sample> samples = full_samples();
  for (Sample& s : samples) s.outcome.correctness = Correctness::kWrong;
  const std::string text = render_summary(complete_run(samples), "o");
  EXPECT_THAT(text, AllOf(StartsWith("## ❌ REGRESSION"),
                          HasSubstr("| sums: thinking accuracy | ≥ 75.0 % | 0.0 %")));
  expect_tables_hold(text);
}

TEST(SummaryMd, FlipsComeBeforeTablesAndHostileTextStaysInItsCell) {
  const std::vector<Sample> base = full_samples();
  std::vector<Sample> now = base;
  const std::vector<std::string> attacks = {
      "a|b|c",          "x\n\n# heading\n| y |",
      "`code` ``` ~~~", "<script>alert(1)</script><!--",
      "\\| \\",         "[click](http://evil.example) @someone"};
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    now[i].outcome.correctness = Correctness::kWrong;
    now[i].answer = now[i].expected = attacks[i];
  }
  const std::string text = render_summary(compared(base, now), "o|u\nt");
  EXPECT_LT(text.find("### Against the baseline"), text.find("### Accuracy"));
  EXPECT_THAT(text, HasSubstr("6 regressed, 0 fixed, 0 wrong on both sides, of 14 pairs"));
  EXPECT_THAT(text, AllOf(HasSubstr("a\\|b\\|c"), Not(HasSubstr("\n# heading")),
                          Not(HasSubstr("<script")), HasSubstr("\\[click\\](http:\\//")));
  expect_tables_hold(text);
}

// What stands below a heading belongs to it.
TEST(SummaryMd, EveryPartHasAHeadingOfItsOwn) {
  const auto has = [](const std::string& text, std::string_view heading, std::string_view line) {
    const auto at = text.find(line);
    return at != std::string::npos && text.substr(0, at).rfind("### ") == text.find(heading);
  };
  const std::vector<Sample> samples = full_samples();
  Json run = compared(samples, samples);
  run["goldens"] = Json::array({{{"name", "vq"}, {"state", "not_comparable"}}});
  run["measurements"] = Json::array({{{"suite", "other"},
                                      {"measure", "divergence"},
                                      {"state", "not_run"},
                                      {"reason", "needs --base"},
                                      {"result", nullptr}}});
  run["skipped"] = Json::array({{{"suite", "mgsm"}, {"reason", "needs its public files"}}});
  run["timings"]["steps"] = to_json(engine::StepCounts{.n_direct = 3});
  const std::string text = render_summary(run, "o");
  EXPECT_TRUE(has(text, "### Goldens", "- golden vq")) << text;
  EXPECT_TRUE(has(text, "### Measurements", "- other: not run")) << text;
  EXPECT_TRUE(has(text, "### Left out", "- suite mgsm was left out")) << text;
  EXPECT_TRUE(has(text, "### Engine", "- engine's steps")) << text;
  EXPECT_TRUE(has(text, "### Files and command", "Report: o/report.html")) << text;
  run.erase("goldens");
  run["golden_note"] = "there is none";
  EXPECT_TRUE(has(render_summary(run, "o"), "### Goldens", "- held to no golden"));
  std::vector<Sample> wrong = samples;
  for (Sample& s : wrong) s.outcome.correctness = Correctness::kWrong;
  EXPECT_TRUE(has(render_summary(complete_run(wrong), "o"), "### Failed gates", "| failed gate"));
}

TEST(SummaryMd, IsShortHoweverMuchHappened) {
  std::vector<Sample> base, now;
  for (int i = 0; i < 3000; ++i) {
    base.push_back(made_sample(std::to_string(i), std::to_string(i), "en", Correctness::kCorrect));
    base.back().answer = std::string(5000, 'x');
    now.push_back(base.back());
    now.back().outcome.correctness = Correctness::kWrong;
  }
  Json run = compared(base, now);
  for (int i = 0; i < 3000; ++i) run["verdict"]["problems"].push_back(std::string(5000, 'y'));
  const std::string text = render_summary(run, "o");
  EXPECT_LT(text.size(), 40000u) << "a job's page takes 1 MiB";
  EXPECT_THAT(text, HasSubstr("and 2980 more flips"));
}

TEST(SummaryMd, MeasurementsAreALineEach) {
  Json run = complete_run(full_samples());
  const Json rate = {{"median", 2860.4}, {"lo", 2700.0}, {"hi", 2990.0}};
  run["measurements"] = Json::array(
      {{{"suite", "throughput"},
        {"measure", "throughput"},
        {"state", "measured"},
        {"reason", ""},
        {"result",
         {{"decode", Json::array({{{"depth", 0}, {"batch", 1}, {"tokens_per_s", rate}}})},
          {"prefill", Json::array({{{"n_prompt", 512}, {"tokens_per_s", nullptr}}})}}}},
       {{"suite", "divergence"},
        {"measure", "divergence"},
        {"state", "measured"},
        {"reason", ""},
        {"result",
         {{"groups", Json::array({{{"n_positions", 77},
                                   {"kld", {{"mean", {{"value", 0.0123}}}}},
                                   {"top1_agreement", {{"value", 0.98}}}}})}}}},
       {{"suite", "other"},
        {"measure", "divergence"},
        {"state", "not_run"},
        {"reason", "needs --base MODEL|FILE"},
        {"result", nullptr}}});
  run["skipped"] = Json::array({{{"suite", "mgsm"}, {"reason", "needs its public files"}}});
  const std::string text = render_summary(run, "o");
  EXPECT_THAT(text, HasSubstr("decode, batch 1 at depth 0: 2860 tokens/s \\[2700, 2990\\]\n"));
  EXPECT_THAT(text, HasSubstr("KLD 0.0123 nats, same top-1 98.00 %, over 77 positions"));
  EXPECT_THAT(text, HasSubstr("- other: not run: needs --base MODEL\\|FILE"));
  EXPECT_THAT(text, HasSubstr("suite mgsm was left out: it needs its public files"));
}

}  // namespace
}  // namespace assay::harness
