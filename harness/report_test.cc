#include "harness/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "harness/compare.h"
#include "harness/record.h"
#include "harness/report_page.h"
#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Json run_of(const std::vector<Sample>& samples) {
  const Plan plan = small_plan();
  Json metrics = Json::array();
  for (const Group& g : summarise(samples)) metrics.push_back(to_json(g));
  return {
      {"format", kRecordFormat},
      {"status", "complete"},
      {"plan", plan.to_json()},
      {"identity", {{"model", "m"}}},
      {"provenance", {{"command", "assay run"}, {"started", "now"}, {"target", Json::object()}}},
      {"verdict", to_json(judge(plan, samples))},
      {"metrics", metrics},
      {"samples", {{"n", samples.size()}, {"hash", "h"}}},
      {"timings", Json::object()}};
}

// As the page carries it.
std::string script() {
  return fmt::format("{}{}{}", kReportJs, kReportComparisonJs, kReportMeasurementsJs);
}

// The JSON between the data element's tags, up to the first thing that ends a script element.
std::string data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const auto begin = page.find(open) + open.size();
  return page.substr(begin, page.find("</script", begin) - begin);
}

std::size_t count(const std::string& text, std::string_view what) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++n;
  return n;
}

TEST(Report, WhatAModelWroteIsNeverMarkup) {
  const std::vector<std::string> attacks = {"<script>alert(1)</script>",
                                            "</script><img src=x onerror=alert(1)>",
                                            "<!-- <script>",
                                            "</SCRIPT >",
                                            "{{js}} {{data}}",
                                            "a\u2028b\u2029c",
                                            "\" onload=\"x",
                                            "]]>"};
  std::vector<Sample> samples;
  for (const std::string& attack : attacks) {
    samples.push_back(made_sample(attack, "c", "en", Correctness::kWrong));
    samples.back().thinking = samples.back().answer = samples.back().prompt = attack;
    samples.back().question = samples.back().error = attack;
  }
  const std::string harmless = render_report(run_of({}), {});
  const std::string page = render_report(run_of(samples), samples);
  for (const char* tag : {"<script", "</script", "<!--", "<img"})
    EXPECT_EQ(count(page, tag), count(harmless, tag)) << tag;
  EXPECT_THAT(page, Not(HasSubstr("\xE2\x80\xA8")));

  const auto data = parse_json(data_of(page), "data");
  ASSERT_TRUE(data) << data.error().message;
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    EXPECT_EQ((*data)["samples"][i]["answer"], attacks[i]);  // nothing is lost either
    EXPECT_EQ((*data)["samples"][i]["thinking"], attacks[i]);
  }
}

TEST(Report, AComparisonStandsAboveTheGatesAndItsTextIsNeverMarkup) {
  const std::string attack = "</script><img src=x onerror=alert(1)>";
  Comparison comparison;
  comparison.flips = {{.key = "sums/thinking/a",
                       .language = "en",
                       .question = attack,
                       .base_answer = attack,
                       .candidate_answer = attack,
                       .regressed = true}};
  Json run = run_of({});
  const std::string without = render_report(run, {});
  run["comparison"] = to_json(comparison);
  run["comparison"]["baseline"] = {{"folder", attack}};
  const std::string page = render_report(run, {});
  for (const char* tag : {"</script", "<img"}) EXPECT_EQ(count(page, tag), count(without, tag));
  const auto data = parse_json(data_of(page), "data");
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ((*data)["run"]["comparison"], run["comparison"]);

  const auto section = page.find("<section id=\"comparison\"");
  ASSERT_NE(section, std::string::npos);
  EXPECT_LT(section, page.find("<section id=\"gates\""));
  EXPECT_THAT(page.substr(section, page.find('>', section) - section), HasSubstr(" hidden"))
      << "a run without a baseline shows no empty section";
  for (const auto& [key, value] : run["comparison"].items())  // nothing recorded goes unseen
    EXPECT_THAT(script(), HasSubstr(key)) << key;
}

// Pasted as it was it would be refused: the folder is there.
TEST(Report, TheCommandToCopyMakesAFolderOfItsOwn) {
  Json run = run_of({});
  run["provenance"]["command"] = "assay run sums --out out/a --model m";
  const auto data = parse_json(data_of(render_report(run, {})), "data");
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ((*data)["command_again"], "assay run sums --model m");
  EXPECT_THAT(script(), HasSubstr("copy(again, copyButton)"));
  EXPECT_THAT(script(), Not(HasSubstr("who.command")));
}

TEST(Report, IsOnePageThatAsksForNothing) {
  const std::string page = render_report(run_of({}), {});
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* reference : {"http://", "https://", " src=", "@import", "url(", "innerHTML"})
    EXPECT_THAT(page, Not(HasSubstr(reference))) << reference;
  EXPECT_THAT(page, Not(HasSubstr("{{")));
}

TEST(Report, TheScriptNonceFollowsTheDataSoThatDataCannotKnowIt) {
  const std::vector<Sample> one = {made_sample("a", "c", "en", Correctness::kWrong)};
  const auto nonce = [](const std::string& page) {
    const auto at = page.find("script-src 'nonce-") + 18;
    return page.substr(at, 32);
  };
  const std::string a = render_report(run_of({}), {}), b = render_report(run_of(one), one);
  EXPECT_NE(nonce(a), nonce(b));
  EXPECT_THAT(a, HasSubstr("<script nonce=\"" + nonce(a) + "\">"));
}

TEST(Report, TheExtractionIsCutAtItsBytes) {
  Sample s = made_sample("a", "c", "ja", Correctness::kCorrect);
  s.answer = "答えは１８です。";
  s.extraction = Extraction{"18", "final_answer", 9, 15};
  const auto data = parse_json(data_of(render_report(run_of({s}), {s})), "data");
  ASSERT_TRUE(data) << data.error().message;
  const Json& e = (*data)["samples"][0]["extraction"];
  EXPECT_EQ(e["before"], "答えは");
  EXPECT_EQ(e["span"], "１８");
  EXPECT_EQ(e["after"], "です。");
}

TEST(Report, InvalidUtf8IsReplacedNotThrown) {
  EXPECT_EQ(script_safe_json(Json("a\xff")), "\"a\xEF\xBF\xBD\"");
}

TEST(Report, TheBinaryCarriesTheFilesAsTheyAre) {
  const fs::path folder = fs::path(ASSAY_SOURCE_DIR) / "reports";
  EXPECT_EQ(kReportHtml, *read_file(folder / "report.html.in"));
  EXPECT_EQ(kReportCss, *read_file(folder / "report.css"));
  EXPECT_EQ(kReportJs, *read_file(folder / "report.js"));
  EXPECT_EQ(kReportComparisonJs, *read_file(folder / "report_comparison.js"));
  EXPECT_EQ(kReportMeasurementsJs, *read_file(folder / "report_measurements.js"));
  EXPECT_THAT(render_report(run_of({}), {}), HasSubstr(script()));
}

// What a row that passed means is what would not have passed; of gates what the terminal says.
TEST(Report, SaysWhatWouldHaveShownInTheConsolesWords) {
  for (const char* words :
       {"✓ no drop of ", " points", " or more", "gates hold", "had no case", "no case for its "})
    EXPECT_THAT(script(), HasSubstr(words)) << words;
  EXPECT_THAT(std::string(kReportComparisonJs), Not(HasSubstr("✓ holds")));
  EXPECT_THAT(std::string(kReportJs), Not(HasSubstr("' not run'")));
}

// A pass that only a large drop would have failed is not green.
TEST(Report, APassThatCouldHardlyFailIsGrey) {
  EXPECT_THAT(script(), AllOf(HasSubstr("(r.detectable_points ?? 100 * ("),
                              HasSubstr("badge('– no drop of ' + wouldShow(r) + ' or more', "
                                        "'plain')")));
}

TEST(Report, SaysWhyNoDistanceIsJudged) {
  EXPECT_THAT(script(), AllOf(HasSubstr("'The two are not judged against each other: ' + reason"),
                              HasSubstr("...(reason ? [] : judged)")));
}

// A list of twenty is shown whole; where a cell or a list scrolls, an edge or its bar says so.
TEST(Report, WhatIsCutSaysSo) {
  EXPECT_THAT(script(), HasSubstr("rows.length > 20 ? 'scroll many' : 'scroll'"));
  EXPECT_THAT(std::string(kReportCss), AllOf(HasSubstr("#comparison .scroll.many { max-height"),
                                             Not(HasSubstr("#comparison .scroll { max-height"))));
  EXPECT_THAT(std::string(kReportCss),
              HasSubstr("/* A shadow at an edge beyond which there is more"));
}

TEST(Report, SaysWhatTheModelsFilesWereWarnedOf) {
  EXPECT_THAT(script(), AllOf(HasSubstr("who.target.misspelt"), HasSubstr("who.target.synthetic")));
}

// Every measure has tables of its own: keys of the record are no headings.
TEST(Report, MeasurementsHaveUnitsAndSayWhatIsBetter) {
  const std::string measures(kReportMeasurementsJs);
  for (const char* words : {"Mean KLD, nats", "Language", "Part of the reply", "lower is better",
                            "higher is better", "Tokens/s [median in]", "To the first token",
                            "Depth, tokens", "Batch, sequences", "calibrated with"})
    EXPECT_THAT(measures, HasSubstr(words)) << words;
}

// A table of many columns is not cut off: its rows become blocks whose cells name their columns.
TEST(Report, AWideTableIsBlocksOnANarrowPage) {
  EXPECT_THAT(script(), AllOf(HasSubstr("'wide'"), HasSubstr("dataset.head = ")));
  EXPECT_THAT(std::string(kReportCss),
              AllOf(HasSubstr("table.wide tr { display: grid;"), HasSubstr("attr(data-head)")));
}

// An accuracy is of the judged samples, which may be fewer than were asked.
TEST(Report, ANumberBesideAnAccuracyCountsTheJudged) {
  EXPECT_THAT(script(), AllOf(HasSubstr("number(g.accuracy.n) + ' of ' + number(g.n)"),
                              HasSubstr("link(judged(g), ")));
  EXPECT_THAT(script(), Not(HasSubstr("link(number(g.n), {suite: g.suite, arm: g.arm})), rateCell("
                                      "g.accuracy)")));
}

TEST(Report, ATraceKeepsEveryPeak) {
  Sample sample = made_sample("a", "a", "ja", Correctness::kCorrect);
  sample.ids.assign(1000, 1);
  sample.steps.assign(1000, {-1, 0, 0});
  sample.drawn = true;
  sample.steps[613].p_think_close = 0.1F;
  const Json data = Json::parse(data_of(render_report(run_of({sample}), {sample})));
  const auto trace = data["samples"][0]["trace"]["think_close"].get<std::vector<double>>();
  ASSERT_EQ(trace.size(), 120u);
  EXPECT_EQ(std::count(trace.begin(), trace.end(), -6.0), 119);
  EXPECT_EQ(std::count(trace.begin(), trace.end(), -1.0), 1);
}

}  // namespace
}  // namespace assay::harness
