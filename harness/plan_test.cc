#include "harness/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/compare_rules.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Plan, AProfileIncludesTheSmallerOnes) {
  EXPECT_EQ(small_plan(Profile::kQuick).items.size(), 5u * 2);
  EXPECT_EQ(small_plan(Profile::kFull).items.size(), 7u * 2);
}

TEST(Plan, LimitTakesTheFirstAndIsRecorded) {
  PlanOptions options;
  options.limit = 3;
  const Plan plan = small_plan(Profile::kFull, options), full = small_plan();
  ASSERT_EQ(plan.items.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(plan.key_of(plan.items[i]), full.key_of(full.items[i]));
  EXPECT_EQ(plan.to_json()["limit"], 3);
}

TEST(Plan, LimitIsSpreadOverTheSuites) {
  const Suite sums = small_plan().suites[0];
  Suite other = sums, tiny = sums;
  other.name = "other";
  tiny.name = "tiny";
  tiny.cases.resize(1);  // in two arms
  const auto first_of_each = [&](int limit) {
    PlanOptions options;
    options.profile = Profile::kFull;
    options.limit = limit;
    const auto plan = make_plan({tiny, sums, other}, options);
    std::vector<int> n(3);
    for (const PlanItem& item : plan->items) ++n[static_cast<std::size_t>(item.suite)];
    EXPECT_EQ(plan->items[0].case_index, 0);
    const Json recorded = plan->to_json()["suites"];
    for (std::size_t s = 0; s < 3; ++s) EXPECT_EQ(recorded[s]["n_items"], n[s]);
    return n;
  };
  EXPECT_THAT(first_of_each(2), ElementsAre(1, 1, 0));
  EXPECT_THAT(first_of_each(7), ElementsAre(2, 3, 2));
  EXPECT_THAT(first_of_each(21), ElementsAre(2, 10, 9)) << "what one lacks, others ask";
  EXPECT_THAT(first_of_each(999), ElementsAre(2, 14, 14));
  PlanOptions one;
  one.limit = 3;
  EXPECT_FALSE(small_plan(Profile::kFull, one).to_json()["suites"][0].contains("n_items"))
      << "records of one suite are as they were";
}

TEST(Plan, FiltersByLanguageAndArm) {
  PlanOptions options;
  options.languages = {"zh"};
  options.arms = {"direct"};
  const Plan plan = small_plan(Profile::kFull, options);
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.key_of(plan.items[0]), "sums/direct/zh-1");
}

TEST(Plan, OverridesAreRecordedBesideTheSuitesOwnSampling) {
  PlanOptions options;
  options.temperature = 0.6;
  options.top_p = 0.95;
  options.max_tokens = 100;
  const Plan plan = small_plan(Profile::kFull, options);
  EXPECT_EQ(plan.to_json()["suites"][0]["arms"][0]["sampling"],
            Json({{"temperature", 0.6}, {"top_p", 0.95}}));
  EXPECT_EQ(plan.suites[0].arms[0].max_tokens, 100);
  EXPECT_EQ(plan.suites[0].arms[0].max_thinking_tokens, 100);
}

TEST(Plan, AnArmThatRepeatsGivesEveryAskingItsOwnKey) {
  std::string json = kSuiteJson;
  const std::string from = "\"max_tokens\": 128}";
  json.replace(json.find(from), from.size(),
               "\"max_tokens\": 128, \"repeats\": 2, \"kinds\": [\"mul\"], \"profile\": \"full\"}");
  const auto suite = parse_suite(json, "j", kCasesCsv, "c");
  ASSERT_TRUE(suite) << suite.error().message;
  PlanOptions options;
  options.profile = Profile::kQuick;
  EXPECT_EQ(make_plan({*suite}, options)->items.size(), 5u) << "the arm belongs to profile full";
  options.profile = Profile::kFull;
  options.arms = {"direct"};
  const auto plan = make_plan({*suite}, options);
  ASSERT_EQ(plan->items.size(), 4u * 2);
  EXPECT_EQ(plan->key_of(plan->items[0]), "sums/direct/ja-2#1");
  EXPECT_EQ(plan->key_of(plan->items[1]), "sums/direct/ja-2#2");
}

TEST(Plan, ALimitThatLeavesNoRoomBehindAForcedCloseIsAnError) {
  std::string json = kSuiteJson;
  const std::string from = "\"max_thinking_tokens\": 640}";
  json.replace(json.find(from), from.size(), "\"max_thinking_tokens\": 24, \"force_close\": true}");
  const auto suite = parse_suite(json, "j", kCasesCsv, "c");
  ASSERT_TRUE(suite) << suite.error().message;
  PlanOptions options;
  options.profile = Profile::kFull;
  options.max_tokens = 24;
  EXPECT_THAT(make_plan({*suite}, options).error().message, HasSubstr("closes thinking at 24"));
  options.arms = {"direct"};
  EXPECT_TRUE(make_plan({*suite}, options)) << "the arm is not asked";
  options.arms = {};
  options.max_tokens = 5000;
  EXPECT_EQ(make_plan({*suite}, options)->suites[0].arms[0].max_tokens, 5000) << "it may be more";
}

TEST(Plan, GeneratedCasesLongerThanTheModelAreLeftOut) {
  Plan plan = small_plan();
  const std::size_t n = plan.items.size();
  plan.suites[0].cases[0].recipe = {{"n_tokens", 4096}};
  EXPECT_EQ(plan.leave_out_longer(4097), 0);
  EXPECT_EQ(plan.leave_out_longer(4096), 2) << "one in each arm";
  EXPECT_EQ(plan.items.size(), n - 2);
}

TEST(Plan, UnknownNamesSuggestTheNearest) {
  PlanOptions options;
  options.profile = Profile::kFull;
  options.arms = {"thinkng"};
  const auto suite = parse_suite(kSuiteJson, "j", kCasesCsv, "c");
  EXPECT_THAT(make_plan({*suite}, options).error().message, HasSubstr("'thinking'"));
  options.arms = {};
  options.languages = {"fr"};
  EXPECT_THAT(make_plan({*suite}, options).error().message, HasSubstr("Known: ja, en, zh"));
  options.languages = {};
  options.profile = Profile::kCi;
  EXPECT_THAT(make_plan({*suite}, options).error().message, HasSubstr("no profile 'ci'"));
}

TEST(Plan, AFloorStandsInItOnlyIfItIsNotTheDefault) {
  Plan plan = small_plan();
  EXPECT_FALSE(plan.to_json()["suites"][0].contains("floor")) << "older records stay comparable";
  EXPECT_EQ(rules_of(plan).floor_of("sums"), kFloor);
  EXPECT_FALSE(rules_of(plan).needs_confirmation("sums", "thinking")) << "greedy";
  EXPECT_TRUE(rules_of(plan, false).needs_confirmation("sums", "thinking"));
  plan.suites[0].floor = 0.1;
  plan.suites[0].arms[0].sampling->temperature = 0.6;
  EXPECT_EQ(plan.to_json()["suites"][0]["floor"], 0.1);
  EXPECT_EQ(rules_of(plan).floor_of("sums"), 0.1);
  EXPECT_TRUE(rules_of(plan).needs_confirmation("sums", "thinking"));
  EXPECT_FALSE(rules_of(plan).needs_confirmation("sums", "direct"));
}

TEST(Plan, RulesAreReadFromRecords) {
  Plan plan = small_plan();
  plan.suites[0].arms[1].sampling->temperature = 1;
  const auto run = [&](const char* kind) {
    return Json{{"plan", plan.to_json()}, {"provenance", {{"target", {{"kind", kind}}}}}};
  };
  EXPECT_TRUE(rules_of(run("engine"), run("engine")).reproducible);
  EXPECT_FALSE(rules_of(run("engine"), run("server")).reproducible) << "only the engine promises";
  EXPECT_TRUE(rules_of(run("engine"), run("engine")).needs_confirmation("sums", "direct"));
}

}  // namespace
}  // namespace assay::harness
