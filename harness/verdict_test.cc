#include "harness/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::HasSubstr;

// One sample per planned item, correct and closed.
std::vector<Sample> perfect(const Plan& plan) {
  std::vector<Sample> samples;
  for (const PlanItem& item : plan.items) {
    const Case& c = plan.case_of(item);
    samples.push_back(
        made_sample(c.id, c.cluster, c.language, Correctness::kCorrect, plan.arm_of(item).name));
    samples.back().kind = c.kind;
  }
  return samples;
}

// The `n`th sample of the thinking arm.
Sample& thinking(std::vector<Sample>& samples, int n) {
  for (Sample& s : samples)
    if (s.arm == "thinking" && n-- == 0) return s;
  throw std::runtime_error("too few");
}

TEST(Verdict, EveryGateHeldIsAPassThatSaysWhatItCouldHaveSeen) {
  const Plan plan = small_plan();
  const Verdict v = judge(plan, perfect(plan));
  EXPECT_EQ(v.state, VerdictState::kPass);
  EXPECT_EQ(exit_code_of(v.state), 0);
  // 7 samples, at least 75 % of them: 6 must be right, so 2 wrong ones fail the gate.
  EXPECT_THAT(v.gates[0].detail, HasSubstr("0 of 7 failed, 2 more (28.6 points) would fail it"));
  EXPECT_THAT(v.gates[0].detail, HasSubstr("plausible down to"));
}

TEST(Verdict, TheLimitIsInclusiveAndOneMoreFailureTripsIt) {
  const Plan plan = small_plan();
  auto samples = perfect(plan);
  thinking(samples, 0).outcome.correctness = Correctness::kWrong;
  EXPECT_EQ(judge(plan, samples).state, VerdictState::kPass);
  thinking(samples, 1).outcome.correctness = Correctness::kWrong;
  const Verdict v = judge(plan, samples);
  EXPECT_EQ(v.state, VerdictState::kRegression);
  EXPECT_EQ(exit_code_of(v.state), 1);
  EXPECT_THAT(v.gates[0].detail, HasSubstr("2 of 7 failed, 1 allowed"));
  EXPECT_EQ(
      headline(v),
      "Regressed: sums/thinking accuracy: accuracy 71.4 % (2 of 7 failed, 1 allowed), limit ≥ "
      "75.0 %. 1 requirement did not hold over 14 samples.");
  EXPECT_EQ(to_json(v)["summary"], headline(v));
  EXPECT_EQ(v.gates[1].state, GateState::kPass);
}

TEST(Verdict, ADecimalLimitIsNotLostToRounding) {
  Plan plan = small_plan();
  plan.suites[0].gates[0].min = 0.97;
  plan.items.clear();
  std::vector<Sample> samples;
  for (int i = 0; i < 100; ++i)
    samples.push_back(made_sample(std::to_string(i), std::to_string(i), "ja",
                                  i < 97 ? Correctness::kCorrect : Correctness::kWrong));
  EXPECT_EQ(judge(plan, samples).gates[0].state, GateState::kPass);
  samples[0].outcome.correctness = Correctness::kWrong;
  EXPECT_EQ(judge(plan, samples).gates[0].state, GateState::kFail);
}

TEST(Verdict, AMissingSampleIsInvalidNotRed) {
  const Plan plan = small_plan();
  auto samples = perfect(plan);
  for (Sample& s : samples) s.outcome.correctness = Correctness::kWrong;  // red, were it valid
  samples.pop_back();
  const Verdict v = judge(plan, samples);
  EXPECT_EQ(v.state, VerdictState::kInvalid);
  EXPECT_EQ(exit_code_of(v.state), 3);
  EXPECT_THAT(v.problems[0], HasSubstr("1 of 14 planned samples are missing"));
}

TEST(Verdict, AnErrorMakesTheRunInvalidUnlessTheSuiteAllowsIt) {
  Plan plan = small_plan();
  auto samples = perfect(plan);
  Sample& broken = thinking(samples, 2);
  broken.outcome = {};
  broken.outcome.termination = Termination::kError;
  broken.error = "the prompt has 9000 tokens";
  broken.finish = "";
  const Verdict v = judge(plan, samples);
  EXPECT_EQ(v.state, VerdictState::kInvalid);
  EXPECT_THAT(v.problems[0], HasSubstr("the prompt has 9000 tokens"));

  Gate errors;
  errors.name = "errors";
  errors.metric = GateMetric::kError;
  errors.max = 0.1;
  plan.suites[0].gates.push_back(errors);
  EXPECT_EQ(judge(plan, samples).state, VerdictState::kPass);
  plan.suites[0].gates.back().max = 0.05;
  EXPECT_EQ(judge(plan, samples).state, VerdictState::kInvalid);
}

TEST(Verdict, NanIsARegressionNotAnInvalidRun) {
  const Plan plan = small_plan();
  auto samples = perfect(plan);
  Sample& broken = thinking(samples, 0);
  broken.outcome = {};
  broken.outcome.termination = Termination::kError;
  broken.finish = "non_finite";
  const Verdict v = judge(plan, samples);
  EXPECT_EQ(v.state, VerdictState::kRegression);
  EXPECT_THAT(v.problems[0], HasSubstr("NaN"));
}

TEST(Verdict, ThinkingThatDoesNotEndFailsItsGate) {
  const Plan plan = small_plan();
  auto samples = perfect(plan);
  thinking(samples, 0).outcome = {Termination::kNoClose, Degeneration::kNone,
                                  Correctness::kNotJudged, -1, 0};
  const Verdict v = judge(plan, samples);
  EXPECT_EQ(v.state, VerdictState::kRegression);
  EXPECT_EQ(v.gates[1].state, GateState::kFail);
  EXPECT_EQ(v.gates[0].state, GateState::kPass);
}

TEST(Verdict, TheHeadlineSaysWhatRegressedFirstAndCountsTheRest) {
  const Plan plan = small_plan();
  Verdict v = judge(plan, perfect(plan));
  const std::string summary = v.summary;
  EXPECT_EQ(headline(v), summary) << "nothing did";
  add_finding(v, VerdictState::kWarn, "thinking is shorter");
  EXPECT_EQ(headline(v), summary);
  add_finding(v, VerdictState::kRegression, "fidelity: twice as far from the base");
  EXPECT_EQ(headline(v), "Regressed: fidelity: twice as far from the base. " + summary);
  add_finding(v, VerdictState::kRegression, "gate facts: it ends failed");
  EXPECT_EQ(headline(v), "Regressed: fidelity: twice as far from the base; and 1 more. " + summary);
  v.state = VerdictState::kInvalid;
  EXPECT_EQ(headline(v), summary) << "what proves nothing regresses nothing";
}

TEST(Verdict, UngatedSamplesDecideNothing) {
  const Plan plan = small_plan();
  auto samples = perfect(plan);
  for (int i = 0; i < 3; ++i) {
    thinking(samples, i).outcome.correctness = Correctness::kWrong;
    thinking(samples, i).gated = false;
  }
  EXPECT_EQ(judge(plan, samples).state, VerdictState::kPass);
}

TEST(Verdict, AGateWithoutSamplesIsNotAPass) {
  PlanOptions options;
  options.arms = {"direct"};
  const Plan plan = small_plan(Profile::kFull, options);
  const Verdict v = judge(plan, perfect(plan));
  EXPECT_EQ(v.gates[0].state, GateState::kNotRun);
  EXPECT_EQ(v.state, VerdictState::kInvalid);  // both gates look at the thinking arm
}

}  // namespace
}  // namespace assay::harness
