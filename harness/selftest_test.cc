// The selftest's own judgement: what counts as caught, by what, in how few cases, and how false
// failures are counted. No model.
#include "harness/selftest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A suite of 240 problems in two arms, the second of which draws.
Plan wide_plan() {
  std::string csv = "id,cluster,language,kind,profile,prompt,messages,answer,steps,note\n";
  for (int i = 0; i < 240; ++i)
    csv += fmt::format("en-{:03},c{},en,add,quick,What is {} + 1?,,{},1,\n", i, i, i, i + 1);
  auto suite = parse_suite(
      R"({"format": 1, "name": "sums", "version": 1, "title": "Sums", "description": "For tests.",
          "languages": ["en"], "cases": "cases.csv", "scoring": "number",
          "arms": [{"name": "direct", "enable_thinking": false, "max_tokens": 128},
                   {"name": "drawn", "enable_thinking": false, "max_tokens": 128,
                    "sampling": {"temperature": 0.6}}],
          "sampling": {"temperature": 0},
          "gates": [{"name": "right", "metric": "accuracy", "min": 0.5}],
          "profiles": ["quick"]})",
      "suite.json", csv, "cases.csv");
  if (!suite) throw std::runtime_error(suite.error().message);
  auto plan = make_plan({*std::move(suite)}, {});
  if (!plan) throw std::runtime_error(plan.error().message);
  return *std::move(plan);
}

// Every planned sample; `is_wrong` says of which the answer is.
std::vector<Sample> answers(const Plan& plan,
                            const std::function<bool(const Case&, const Arm&)>& is_wrong) {
  std::vector<Sample> out;
  for (const PlanItem& item : plan.items) {
    const Case& c = plan.case_of(item);
    const Arm& arm = plan.arm_of(item);
    Sample s =
        made_sample(c.id, c.cluster, c.language,
                    is_wrong(c, arm) ? Correctness::kWrong : Correctness::kCorrect, arm.name);
    s.repeat = item.repeat;
    s.ids = {1, 2};
    s.prompt_hash = c.id;
    if (arm.sampling->temperature > 0) s.draws = DrawFigures{2, 0, {{"x", 0.0}}};
    out.push_back(std::move(s));
  }
  return out;
}

std::vector<Sample> healthy(const Plan& plan) {
  return answers(plan, [](const Case&, const Arm&) { return false; });
}

SelftestFault fault_named(const char* name) {
  auto found = faults_named({name});
  if (!found) throw std::runtime_error(found.error().message);
  return found->front();
}

TEST(SelftestFaults, EveryOneHasANameOfItsOwnAndEveryKindAStrongOne) {
  std::set<std::string> names;
  std::map<std::string, bool> has_strong;
  for (const SelftestFault& f : selftest_faults()) {
    EXPECT_TRUE(names.insert(f.name).second) << f.name;
    has_strong[f.what] |= f.strong;
    EXPECT_EQ(f.how == SelftestFault::How::kEngine, f.engine.is_planted()) << f.name;
    EXPECT_EQ(f.how == SelftestFault::How::kFiles, !f.files.empty()) << f.name;
  }
  for (const auto& [what, strong] : has_strong) EXPECT_TRUE(strong) << what;
}

TEST(SelftestFaults, AreFoundByNameAndMisspellingsAreSuggested) {
  EXPECT_EQ(faults_named({"all"})->size(), selftest_faults().size());
  EXPECT_TRUE(faults_named({"none"})->empty());
  EXPECT_EQ(faults_named({"stuck", "greedy"})->size(), 2u);
  const auto unknown = faults_named({"gredy"});
  ASSERT_FALSE(unknown.has_value());
  EXPECT_THAT(unknown.error().message, HasSubstr("unknown fault 'gredy'. Did you mean 'greedy'?"));
}

TEST(SelftestOrder, EveryBeginningHasTheMixOfTheWhole) {
  const Plan plan = small_plan();  // 7 cases, thinking and direct
  std::vector<std::size_t> order = spread_order(plan);
  for (std::size_t n = 2; n <= order.size(); n += 2) {
    int n_thinking = 0;
    for (std::size_t i = 0; i < n; ++i)
      n_thinking += plan.arm_of(plan.items[order[i]]).name == "thinking";
    EXPECT_EQ(n_thinking, static_cast<int>(n / 2)) << n;
  }
  std::sort(order.begin(), order.end());
  for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
}

TEST(SelftestDetect, ARefusedModelIsCaughtWithoutAsking) {
  const Plan plan = small_plan();
  FaultRun run;
  run.refused = "x.safetensors: NaN";
  run.wall_s = 60;
  const Detection d = detect(fault_named("logit-nan-weights"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "refused");
  EXPECT_TRUE(d.caught());
  EXPECT_EQ(d.n_needed, 0);
  EXPECT_THAT(d.by, ElementsAre("x.safetensors: NaN"));
}

TEST(SelftestDetect, AHealthyRunIsNotCaught) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = healthy(plan);
  const Detection d = detect(fault_named("kv-once"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "pass");
  EXPECT_FALSE(d.caught());
  EXPECT_THAT(d.by, IsEmpty());
  EXPECT_EQ(d.n_needed, 0);
  EXPECT_EQ(d.n_samples, 480);
}

// 24 of 240 greedy answers fall: the gate at 50 % sees nothing, the comparison does, and not in a
// run so small that hardly one of them is asked.
TEST(SelftestDetect, AComparisonCatchesWhatNoGateSees) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = answers(plan, [](const Case& c, const Arm& arm) {
    return arm.name == "direct" && std::stoi(c.id.substr(3)) % 10 == 0;
  });
  run.wall_s = 120;
  const Detection d = detect(fault_named("expert-scale-2"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  EXPECT_THAT(d.by, Contains(HasSubstr("compare sums/direct")));
  EXPECT_GT(d.n_needed, 100);
  EXPECT_LT(d.n_needed, 480);
  EXPECT_DOUBLE_EQ(d.minutes_needed, 2.0 * d.n_needed / 480);
}

TEST(SelftestDetect, AGateCatchesAWreckInFewCases) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = answers(plan, [](const Case&, const Arm&) { return true; });
  const Detection d = detect(fault_named("rope-half-split"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  EXPECT_THAT(d.by, Contains("gate sums/right"));
  EXPECT_LE(d.n_needed, 16);
}

// A divergence in which every text is `factor` times as far from the base as `kld`.
Json divergence(double factor) {
  const Json mean = {{"value", 0.01 * factor}, {"error", 0.001}};
  Json result = {{"base", {{"fingerprint", "b"}}},
                 {"candidate", {{"active_bytes", 1000}, {"routed_bytes", 1000}}},
                 {"noise_floor", nullptr},
                 {"groups",
                  {{{"lang", "all"},
                    {"part", "all"},
                    {"n_texts", 40},
                    {"kld_coarsening", 0.0},
                    {"kld", {{"mean", mean}}}}}},
                 {"texts", Json::array()}};
  for (int i = 0; i < 40; ++i)
    result["texts"].push_back({{"id", fmt::format("t{}", i)},
                               {"lang", "en"},
                               {"n_positions", 10},
                               {"kld", 0.01 * factor * (1 + i % 7)}});
  return Json::array(
      {{{"measure", "divergence"}, {"state", "measured"}, {"hash", "h"}, {"result", result}}});
}

// No answer changed; every distribution did.
TEST(SelftestDetect, TheDivergenceCatchesWhatNoAnswerShows) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = healthy(plan);
  run.wall_s = 120;
  run.divergence_wall_s = 12;
  run.base_measurements = divergence(1);
  run.measurements = divergence(1.4);
  const Detection d = detect(fault_named("expert-swap"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  EXPECT_THAT(d.by, ElementsAre("divergence (all) × 1.4"));
  EXPECT_EQ(d.n_needed, 0) << "nothing need be asked";
  EXPECT_EQ(d.n_texts, 40);
  // Wilcoxon's p of n equal signs is 2^(1 - n) where no two ranks tie, below 0.01 from 8 on.
  EXPECT_GE(d.n_texts_needed, 8);
  EXPECT_LT(d.n_texts_needed, 14);
  EXPECT_DOUBLE_EQ(d.minutes_needed, 0.2 * d.n_texts_needed / 40);
  EXPECT_THAT(selftest_table(std::vector{d}), HasSubstr(fmt::format("{} texts", d.n_texts_needed)));

  run.measurements = divergence(1.2);
  EXPECT_EQ(detect(fault_named("expert-swap"), plan, healthy(plan), run).state, "warn");
}

TEST(SelftestDetect, WhatIsSuspectedInDrawsIsInvalidUntilItIsDrawnAgain) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = answers(plan, [](const Case& c, const Arm& arm) {
    return arm.name == "drawn" && std::stoi(c.id.substr(3)) % 10 == 0;
  });
  const SelftestFault fault = fault_named("expert-scale-2");
  EXPECT_EQ(detect(fault, plan, healthy(plan), run).state, "invalid");

  const Comparison first = compare(healthy(plan), run.samples, rules_of(plan));
  const Plan again = confirmation_plan(plan, confirm_keys(first, healthy(plan), run.samples));
  run.base_again = healthy(again);
  run.candidate_again = healthy(again);
  EXPECT_EQ(detect(fault, plan, healthy(plan), run).state, "pass") << "it was luck";
  run.candidate_again =
      answers(again, [](const Case& c, const Arm&) { return std::stoi(c.id.substr(3)) % 10 == 0; });
  const Detection d = detect(fault, plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  EXPECT_THAT(d.by, Contains(HasSubstr("compare sums/drawn")));
}

TEST(SelftestDetect, ASamplerThatDrawsSomethingElseIsNamedFirst) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = healthy(plan);
  for (Sample& s : run.samples)
    if (s.draws) s.draws->log_ratio["x"] = 1;  // 240 replies: e^240
  const Detection d = detect(fault_named("bias-1"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  ASSERT_FALSE(d.by.empty());
  EXPECT_THAT(d.by.front(), HasSubstr("sampler: "));
  // ln(1e6) is 13.8 such replies: half of 32 cases are too few or just enough, and 60 are plenty.
  EXPECT_GE(d.n_needed, 28);
  EXPECT_LE(d.n_needed, 60);
}

TEST(SelftestDetect, WhatAHealthyRunIsToldTooIsNoCatch) {
  const Plan plan = small_plan();  // too few samples for a comparison
  FaultRun run;
  run.samples = healthy(plan);
  for (Sample& s : run.samples) s.draws.reset();
  const Detection d = detect(fault_named("kv-every-step"), plan, run.samples, run);
  EXPECT_EQ(d.state, "invalid");
  EXPECT_FALSE(d.caught());
}

TEST(SelftestDetect, OtherPromptsAreNotComparable) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = healthy(plan);
  for (Sample& s : run.samples) s.prompt_hash += "x";
  const Detection d = detect(fault_named("chat-tags"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "invalid");
  EXPECT_THAT(d.by, Contains(HasSubstr("not comparable")));
}

TEST(SelftestDetect, AGoldenCatchesWhatNoSampleShows) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = healthy(plan);
  GoldenCheck golden;
  golden.name = "bf16";
  golden.n_replies = 5;
  run.goldens = {golden};
  EXPECT_EQ(detect(fault_named("kv-once"), plan, healthy(plan), run).state, "pass");
  run.goldens[0].divergences.push_back({.key = "sums/direct/en-001", .position = 700});
  const Detection d = detect(fault_named("kv-once"), plan, healthy(plan), run);
  EXPECT_EQ(d.state, "regression");
  EXPECT_THAT(d.by, ElementsAre("golden bf16: 1 of 5 replies"));
  EXPECT_EQ(d.n_needed, 480);
}

TEST(SelftestDetect, IsOnRecordAndReadAgain) {
  const Plan plan = wide_plan();
  FaultRun run;
  run.samples = answers(plan, [](const Case&, const Arm&) { return true; });
  run.wall_s = 30;
  const Detection d = detect(fault_named("rope-half-split"), plan, healthy(plan), run);
  const auto again = parse_detection(to_json(d), "here");
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(to_json(*again), to_json(d));
  const auto bad = parse_detection({{"fault", 3}}, "faults/x.json");
  ASSERT_FALSE(bad.has_value());
  EXPECT_THAT(bad.error().message, HasSubstr("faults/x.json: not a fault of a selftest"));
}

TEST(SelftestNight, EqualSidesPassAndALuckyDrawIsSuspectedNotAccused) {
  const Plan plan = wide_plan();
  const Night quiet = judge_night(3, plan, healthy(plan), healthy(plan), {});
  EXPECT_EQ(quiet.state, "pass");
  EXPECT_EQ(quiet.number, 3);
  EXPECT_EQ(quiet.n_samples, 960);
  EXPECT_EQ(quiet.n_tokens, 1920);
  EXPECT_THAT(quiet.suspicions, IsEmpty());
  EXPECT_TRUE(quiet.gates_hold);

  const auto unlucky = answers(plan, [](const Case& c, const Arm& arm) {
    return arm.name == "drawn" && std::stoi(c.id.substr(3)) < 12;
  });
  const Comparison first = compare(healthy(plan), unlucky, rules_of(plan));
  const Plan again = confirmation_plan(plan, confirm_keys(first, healthy(plan), unlucky));
  ASSERT_FALSE(again.items.empty());
  const Night cleared =
      judge_night(4, plan, healthy(plan), unlucky, confirm(first, healthy(again), healthy(again)));
  EXPECT_EQ(cleared.state, "pass");
  EXPECT_FALSE(cleared.suspicions.empty());
  const Night accused = judge_night(
      5, plan, healthy(plan), unlucky,
      confirm(first, healthy(again), answers(again, [](const Case&, const Arm&) { return true; })));
  EXPECT_EQ(accused.state, "regression");
  EXPECT_FALSE(accused.regressions.empty());

  const auto read = parse_night(to_json(accused), "here");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(to_json(*read), to_json(accused));
  EXPECT_THAT(parse_night(Json::object(), "nights/0001.json").error().message,
              HasSubstr("nights/0001.json: not a night of a selftest"));
}

Night night_in_state(const char* state) {
  Night n;
  n.state = state;
  return n;
}

// R: binom.test(k, n, alternative = "less")$conf.int[2]: 0 of 300: 0.009936082, 3 of 300:
// 0.02564139.
TEST(SelftestFalseFails, TheUpperBoundIsClopperAndPearsonsOneSided) {
  std::vector<Night> nights(300, night_in_state("pass"));
  EXPECT_NEAR(count_false_fails(nights).upper95, 0.009936082, 1e-8);
  for (int i = 0; i < 3; ++i) nights[static_cast<std::size_t>(i)] = night_in_state("regression");
  nights[7] = night_in_state("invalid");
  const FalseFails fails = count_false_fails(nights);
  EXPECT_EQ(fails.n_failed, 3);
  EXPECT_EQ(fails.n_inconclusive, 1);
  EXPECT_NEAR(fails.upper95, 0.02564139, 1e-7);
  EXPECT_EQ(count_false_fails({}).upper95, 1);
  nights[0].sampler_accused = nights[9].sampler_accused = true;
  EXPECT_EQ(count_false_fails(nights).n_failed, 4) << "a real night would have exited with 1";
}

TEST(SelftestVerdict, AMissedStrongFaultOrFrequentAccusationsFail) {
  Detection caught, missed;
  caught.strong = missed.strong = true;
  caught.state = "regression";
  missed.state = "warn";
  caught.by = {"gate a/b"};
  EXPECT_TRUE(selftest_passes(std::vector{caught}, {}));
  EXPECT_FALSE(selftest_passes(std::vector{caught, missed}, {}));
  missed.strong = false;
  EXPECT_TRUE(selftest_passes(std::vector{caught, missed}, {}));
  // R: binom.test(7, 300, alternative = "greater")$conf.int[1] = 0.01100106, with 6: 0.00874498.
  std::vector<Night> nights(300, night_in_state("pass"));
  for (std::size_t i = 0; i < 6; ++i) nights[i] = night_in_state("regression");
  EXPECT_TRUE(selftest_passes({}, count_false_fails(nights)));
  nights[6] = night_in_state("regression");
  EXPECT_FALSE(selftest_passes({}, count_false_fails(nights)));
}

TEST(SelftestTable, MissesAreShownAndPipesDoNotBreakIt) {
  Detection caught, missed;
  caught.fault = "a";
  caught.what = "x | y";
  caught.state = "regression";
  caught.strong = missed.strong = true;
  caught.by = {"gate a/b", "gate a/c", "gate a/d"};
  caught.n_samples = 500;
  caught.n_needed = 32;
  caught.minutes_needed = 0.25;
  missed.fault = "b";
  missed.state = "pass";
  missed.n_samples = 500;
  const std::vector<Detection> both = {caught, missed};
  const std::string text = selftest_table(both), markdown = selftest_markdown(both);
  EXPECT_THAT(text, HasSubstr("1 of 2 strong faults caught, 0 of 0 weak ones"));
  EXPECT_THAT(text, HasSubstr("MISSED"));
  EXPECT_THAT(markdown, HasSubstr("| x \\| y |"));
  EXPECT_THAT(markdown, HasSubstr("| regression | 32 of 500 | 0.2 | gate a/b; gate a/c; 1 more |"));
  EXPECT_THAT(markdown, HasSubstr("| MISSED | – of 500 | – |"));
}

}  // namespace
}  // namespace assay::harness
