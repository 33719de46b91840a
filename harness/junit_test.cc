#include "harness/junit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "harness/compare.h"
#include "harness/complete_run.h"
#include "harness/verdict.h"
#include "harness/xml_check.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

XmlNode junit_of(const Json& run, const std::vector<Sample>& samples) {
  return XmlReader::read(render_junit(run, samples));
}

const XmlNode* find_suite(const XmlNode& root, std::string_view name) {
  for (const XmlNode* suite : root.all("testsuite"))
    if (suite->attributes.at("name") == name) return suite;
  ADD_FAILURE() << "no test suite " << name;
  return nullptr;
}

int red(const XmlNode& root) {
  return std::stoi(root.attributes.at("failures")) + std::stoi(root.attributes.at("errors"));
}

// What Jenkins' schema of the format asks for: attributes, their types, and the order of children.
void expect_dialect(const XmlNode& root) {
  const auto is_number = [](const std::string& text) {
    return std::regex_match(text, std::regex("[0-9]+(\\.[0-9]+)?"));
  };
  EXPECT_EQ(root.name, "testsuites");
  std::map<std::string, int> sums;
  for (const XmlNode* suite : root.all("testsuite")) {
    std::map<std::string, int> n = {{"tests", 0}, {"failures", 0}, {"errors", 0}, {"skipped", 0}};
    EXPECT_FALSE(suite->attributes.at("name").empty());
    EXPECT_TRUE(is_number(suite->attributes.at("time")));
    EXPECT_TRUE(std::regex_match(suite->attributes.at("timestamp"),
                                 std::regex("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d")));
    std::set<std::string> names;
    for (const XmlNode& c : suite->children) {
      EXPECT_EQ(c.name, "testcase");
      EXPECT_FALSE(c.attributes.at("classname").empty());
      EXPECT_TRUE(is_number(c.attributes.at("time")));
      EXPECT_TRUE(names.insert(c.attributes.at("classname") + "/" + c.attributes.at("name")).second)
          << c.attributes.at("name") << " is there twice";
      ++n["tests"];
      for (std::size_t i = 0; i < c.children.size(); ++i) {
        const XmlNode& child = c.children[i];
        if (child.name == "system-out") {
          EXPECT_EQ(i + 1, c.children.size());
          continue;
        }
        EXPECT_EQ(i, 0u);
        EXPECT_FALSE(child.attributes.at("message").empty()) << c.attributes.at("name");
        EXPECT_EQ(child.attributes.contains("type"), child.name != "skipped");
        ++n[child.name == "failure" ? "failures" : child.name == "error" ? "errors" : child.name];
      }
    }
    EXPECT_EQ(n.size(), 4u) << "a child that the format does not know";
    for (const auto& [key, value] : n) {
      EXPECT_EQ(suite->attributes.at(key), std::to_string(value)) << key;
      sums[key] += value;
    }
  }
  for (const auto& [key, value] : sums)
    EXPECT_EQ(root.attributes.at(key), std::to_string(value)) << key;
}

TEST(Junit, AWrongAnswerInsideAPassingGateIsNoFailure) {
  std::vector<Sample> samples = full_samples();
  samples[0].outcome.correctness = Correctness::kWrong;  // the gate allows a quarter
  samples[0].answer = "It is 6.";
  const XmlNode root = junit_of(complete_run(samples), samples);
  expect_dialect(root);
  EXPECT_EQ(red(root), 0);
  const XmlNode& wrong = find_suite(root, "sums.thinking")->children[0];
  ASSERT_EQ(wrong.children.size(), 1u);
  EXPECT_THAT(wrong.children[0].text, AllOf(HasSubstr("class: wrong"), HasSubstr("It is 6.")));
  EXPECT_EQ(find_suite(root, "gates")->children.size(), 2u);
}

TEST(Junit, AGateThatFailedIsAFailureAndOneWithoutACaseIsSkipped) {
  std::vector<Sample> samples = full_samples();
  for (Sample& s : samples) s.outcome.correctness = Correctness::kWrong;
  Json run = complete_run(samples);
  run["verdict"]["gates"][1]["state"] = "not_run";
  run["verdict"]["gates"][1]["detail"] = "no case";
  const XmlNode root = junit_of(run, samples);
  expect_dialect(root);
  const XmlNode* gates = find_suite(root, "gates");
  EXPECT_EQ(gates->children[0].children[0].name, "failure");
  EXPECT_THAT(gates->children[0].children[0].attributes.at("message"),
              HasSubstr("accuracy 0.0 % of 7, limit ≥ 75.0 %"));
  EXPECT_EQ(gates->children[1].children[0].name, "skipped");
  EXPECT_EQ(find_suite(root, "verdict")->attributes.at("failures"), "1");
  EXPECT_EQ(find_suite(root, "sums.thinking")->attributes.at("failures"), "0");
}

TEST(Junit, ASampleThatDidNotRunIsAnErrorUnlessItsSuiteAllowsIt) {
  std::vector<Sample> samples = full_samples();
  samples[2].outcome.termination = Termination::kError;
  samples[2].error = "the worker fell over";
  Json run = complete_run(samples);
  EXPECT_EQ(run["verdict"]["state"], "invalid");
  XmlNode root = junit_of(run, samples);
  expect_dialect(root);
  const auto sample = [&] { return find_suite(root, "sums.thinking")->children[1].children[0]; };
  EXPECT_EQ(sample().name, "error");
  EXPECT_EQ(sample().attributes.at("message"), "the worker fell over");
  EXPECT_EQ(find_suite(root, "verdict")->attributes.at("errors"), "1");

  Json gate = run["verdict"]["gates"][0];
  gate.update({{"metric", "error"}, {"state", "pass"}, {"name", "few errors"}});
  run["verdict"]["gates"].push_back(gate);
  run["verdict"]["state"] = "pass";
  root = junit_of(run, samples);
  expect_dialect(root);
  EXPECT_EQ(sample().name, "skipped");
  EXPECT_EQ(red(root), 0) << "a run that passed has nothing red";
}

TEST(Junit, AMissingSampleMakesTheVerdictRedThoughNoTestCaseIsThereForIt) {
  std::vector<Sample> samples = full_samples();
  samples.pop_back();
  const XmlNode root = junit_of(complete_run(samples), samples);
  expect_dialect(root);
  EXPECT_EQ(red(root), 1);
  EXPECT_THAT(find_suite(root, "verdict")->children[0].children.back().text,
              HasSubstr("1 of 14 planned samples are missing"));
}

TEST(Junit, NanIsAFailureOfItsSample) {
  std::vector<Sample> samples = full_samples();
  samples[0].finish = "non_finite";
  samples[0].outcome = {.termination = Termination::kError};
  samples[0].error = "NaN or Inf in the logits at reply token 3";
  const XmlNode root = junit_of(complete_run(samples), samples);
  expect_dialect(root);
  EXPECT_EQ(find_suite(root, "sums.thinking")->children[0].children[0].name, "failure");
}

TEST(Junit, ARowOfTheComparisonIsATestThatFailsWhereItRegressed) {
  const std::vector<Sample> samples = full_samples();
  Json run = complete_run(samples);
  run["comparison"] = to_json(compare(samples, samples));
  Json& rows = run["comparison"]["rows"];
  ASSERT_GT(rows.size(), 2u);
  rows[0]["verdict"] = "regression";
  rows[1]["verdict"] = "suspected";
  rows[2]["verdict"] = "warn";
  const XmlNode root = junit_of(run, samples);
  expect_dialect(root);
  const XmlNode* baseline = find_suite(root, "baseline");
  EXPECT_EQ(baseline->children.size(),
            rows.size() + run["comparison"].value("lengths", Json::array()).size());
  EXPECT_EQ(baseline->children[0].attributes.at("classname"), "baseline.sums.thinking");
  EXPECT_EQ(baseline->children[0].children[0].name, "failure");
  EXPECT_EQ(baseline->children[1].children[0].name, "error");
  EXPECT_EQ(baseline->children[2].children[0].name, "system-out");
  EXPECT_THAT(baseline->children[2].children[0].text, HasSubstr("warn: "));
}

TEST(Junit, AGoldenThatDivergesIsAFailureAndOneThatCannotBeComparedAnError) {
  Json run = complete_run(full_samples());
  const Json divergence = {
      {"key", "sums/direct/a"}, {"position", 3}, {"is_text", "6"}, {"was_text", "5"}};
  run["goldens"] = Json::array({{{"name", "same"}, {"state", "pass"}, {"n_replies", 9}},
                                {{"name", "other"}, {"state", "diverged"}, {"n_replies", 9}},
                                {{"name", "old"}, {"state", "not_comparable"}, {"n_replies", 0}}});
  for (Json& golden : run["goldens"]) {
    golden["divergences"] = Json::array();
    golden["reason"] = golden["state"] == "not_comparable" ? "another suite" : "";
  }
  run["goldens"][1]["divergences"].push_back(divergence);
  const XmlNode root = junit_of(run, full_samples());
  expect_dialect(root);
  const auto& cases = find_suite(root, "goldens")->children;
  EXPECT_TRUE(cases[0].children.empty());
  EXPECT_EQ(cases[1].children[0].name, "failure");
  EXPECT_THAT(cases[1].children[1].text, HasSubstr("sums/direct/a at token 3: '6' was '5'"));
  EXPECT_EQ(cases[2].children[0].attributes.at("message"), "another suite");
}

TEST(Junit, ASamplerThatDoesNotDrawWhatItSaysIsAFailure) {
  Json run = complete_run(full_samples());
  run["verdict"]["sampler"] = {{"holds", false}, {"text", "draws too often"}};
  const XmlNode root = junit_of(run, full_samples());
  expect_dialect(root);
  EXPECT_EQ(find_suite(root, "gates")->attributes.at("failures"), "1");
}

TEST(Junit, AMeasurementThatWasNotMadeIsSkipped) {
  Json run = complete_run(full_samples());
  run["measurements"] = Json::array({{{"suite", "divergence"},
                                      {"measure", "divergence"},
                                      {"state", "not_run"},
                                      {"reason", "needs --base MODEL|FILE"},
                                      {"wall_s", 0.0},
                                      {"result", nullptr}}});
  const XmlNode root = junit_of(run, full_samples());
  expect_dialect(root);
  EXPECT_EQ(find_suite(root, "measurements")->children[0].children[0].name, "skipped");
}

TEST(Junit, HostileRepliesStayText) {
  const std::vector<std::string> attacks = {"]]></system-out><failure/>",
                                            std::string("\0\x01\x1b[31m\x7f", 8),
                                            "\xff\xfe lone \xED\xA0\x80 half \xE7\xAD",
                                            "<![CDATA[ & &#0; \" ' \r\n\t",
                                            "\xEF\xBF\xBF",
                                            std::string(100000, 'x')};
  std::vector<Sample> samples = full_samples();
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    Sample& s = samples[i];
    s.question = s.answer = s.expected = s.thinking = attacks[i];
    s.outcome.correctness = Correctness::kWrong;
    s.extraction = Extraction{attacks[i], "rule", 0, 1};
    if (i == 1) s.outcome.termination = Termination::kError;
    s.error = attacks[i];
  }
  const std::string text = render_junit(complete_run(samples), samples);
  const XmlNode root = XmlReader::read(text);
  expect_dialect(root);
  EXPECT_THAT(find_suite(root, "sums.thinking")->children[0].children[0].text,
              HasSubstr(attacks[0]));
  EXPECT_LT(text.size(), 20000u) << "however long a reply is";
}

}  // namespace
}  // namespace assay::harness
