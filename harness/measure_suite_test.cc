#include "harness/measure_suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/suite.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr Profile kProfiles[] = {Profile::kQuick, Profile::kCi, Profile::kNightly, Profile::kFull};

fs::path bundled(const char* name) { return fs::path(ASSAY_SOURCE_DIR) / "suites" / name; }

const Json kDivergence = {{"format", 1},
                          {"name", "far"},
                          {"version", 1},
                          {"title", "How far"},
                          {"measure", "divergence"},
                          {"texts", "texts.jsonl"},
                          {"noise_texts", 3},
                          {"profiles", {{"quick", {{"limit", 2}}}, {"full", Json::object()}}}};

std::string error_with(const char* key, const Json& value) {
  Json json = kDivergence;
  json[key] = value;
  const auto suite = parse_divergence_suite(json.dump(), "suite.json");
  return suite ? "no error" : suite.error().message;
}

TEST(MeasureSuite, TheBundledOnesSupportEveryProfile) {
  for (const char* name : {"throughput", "divergence"}) {
    const auto suite = load_measure_suite(bundled(name));
    ASSERT_TRUE(suite) << suite.error().message;
    EXPECT_EQ(head_of(*suite).name, name);
    EXPECT_EQ(head_of(*suite).measure, name);
    for (const Profile profile : kProfiles) EXPECT_TRUE(supports(*suite, profile)) << name;
  }
}

TEST(MeasureSuite, IsToldFromASuiteOfCasesByItsMeasure) {
  EXPECT_EQ(measure_of(*read_json(bundled("throughput") / "suite.json")), "throughput");
  EXPECT_EQ(measure_of(*read_json(bundled("arithmetic") / "suite.json")), std::nullopt);
  EXPECT_EQ(measure_of({{"measure", 3}}), "") << "one that is damaged is still none of cases";
}

TEST(MeasureSuite, AnUnknownMeasureIsNamed) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "suite.json") << R"({"measure": "divergance"})";
  EXPECT_THAT(load_measure_suite(folder.path()).error().message,
              AllOf(HasSubstr("suite.json"), HasSubstr("'divergance'"), HasSubstr("'divergence'")));
}

TEST(DivergenceSuite, AProfileLimitsItsTexts) {
  const auto suite = parse_divergence_suite(kDivergence.dump(), "suite.json");
  ASSERT_TRUE(suite) << suite.error().message;
  EXPECT_EQ(suite->profiles.at(Profile::kQuick).limit, 2);
  EXPECT_EQ(suite->profiles.at(Profile::kQuick).n_noise_texts, 3);
  EXPECT_EQ(suite->profiles.at(Profile::kFull).limit, 0) << "all";
}

TEST(DivergenceSuite, EveryMistakeIsNamedWithWhatWasExpected) {
  EXPECT_THAT(error_with("limits", 3),
              AllOf(HasSubstr("suite.json: unknown key 'limits'"), HasSubstr("'limit'")));
  EXPECT_THAT(error_with("limit", -1), AllOf(HasSubstr("from 0 to"), HasSubstr("got -1")));
  EXPECT_THAT(error_with("texts", "../texts.jsonl"), HasSubstr("in the suite's folder"));
  EXPECT_THAT(error_with("texts", ""), HasSubstr("non-empty string"));
  EXPECT_THAT(error_with("profiles", {{"ci", {{"limit", "all"}}}}),
              AllOf(HasSubstr("profiles.ci"), HasSubstr("\"all\"")));
  EXPECT_THAT(error_with("format", 2), HasSubstr("'format'"));
}

TEST(DivergenceSuite, ItsHashCoversItsTexts) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "suite.json") << kDivergence.dump();
  const auto hash_with = [&](const char* text) {
    std::ofstream(folder.path() / "texts.jsonl") << text;
    const auto suite = load_divergence_suite(folder.path());
    return suite ? suite->head.hash : suite.error().message;
  };
  const std::string first = hash_with("{\"text\":\"a b\"}\n");
  EXPECT_EQ(first.size(), 32u) << first;
  EXPECT_NE(hash_with("{\"text\":\"a c\"}\n"), first);
  EXPECT_THAT(hash_with("nonsense\n"), HasSubstr("texts.jsonl:1"));
}

TEST(Measurement, WhatWasNotRunSaysWhyAndIsNoPass) {
  const auto suite = load_measure_suite(bundled("divergence"));
  ASSERT_TRUE(suite) << suite.error().message;
  const Measurement m{.suite = head_of(*suite), .reason = std::string(kNoBase), .result = {}};
  const Json json = to_json(m);
  EXPECT_EQ(json["state"], "not_run");
  EXPECT_TRUE(json["result"].is_null());
  EXPECT_THAT(render_measurements(Json::array({json}), false),
              AllOf(HasSubstr("divergence"), HasSubstr("not run: needs --base MODEL|FILE"),
                    Not(HasSubstr("pass"))));
  EXPECT_EQ(render_measurements(Json::array(), false), "");
}

}  // namespace
}  // namespace assay::harness
