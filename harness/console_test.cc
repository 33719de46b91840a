#include "harness/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::harness {
namespace {

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

TEST(Console, ColourOnlyWhereItIsAskedFor) {
  EXPECT_THAT(render_console(small_run(), {false, ""}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_console(small_run(), {true, ""}), HasSubstr("\x1b[32m"));
}

}  // namespace
}  // namespace assay::harness
