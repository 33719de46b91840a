#include "harness/own_failures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::harness {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json run_with(const std::string& gate_state, const std::string& golden_state = "pass",
              bool sampler_holds = true, const std::string& state = "pass") {
  return {{"verdict",
           {{"state", state},
            {"summary", "As it was."},
            {"gates", {{{"suite", "sums"}, {"name", "is accurate"}, {"state", gate_state}}}},
            {"sampler", {{"holds", sampler_holds}}}}},
          {"goldens", {{{"name", "mine"}, {"state", golden_state}}}}};
}

Verdict judged(const Json& base, const Json& candidate) {
  Verdict verdict;
  verdict.state = VerdictState::kPass;
  add_own_failures(verdict, base, candidate);
  return verdict;
}

TEST(OwnFailures, WhatFailedInTheCandidateAloneIsARegression) {
  const Json good = run_with("pass");
  EXPECT_EQ(judged(good, good).state, VerdictState::kPass);
  const Verdict gate = judged(good, run_with("fail"));
  EXPECT_EQ(gate.state, VerdictState::kRegression);
  EXPECT_THAT(gate.problems, ElementsAre(HasSubstr("gate sums: is accurate failed")));
  EXPECT_EQ(judged(good, run_with("pass", "diverged")).state, VerdictState::kRegression);
  EXPECT_EQ(judged(good, run_with("pass", "pass", false)).state, VerdictState::kRegression);
}

TEST(OwnFailures, WhatFailedInBothIsSaidAndDecidesNothing) {
  const Verdict both = judged(run_with("fail"), run_with("fail"));
  EXPECT_EQ(both.state, VerdictState::kPass);
  EXPECT_THAT(both.problems, IsEmpty());
  EXPECT_THAT(both.summary, HasSubstr("1 of the candidate's own checks failed"));
  EXPECT_EQ(judged(run_with("fail"), run_with("pass")).state, VerdictState::kPass);
}

TEST(OwnFailures, AnInvalidRunProvesNothingUnlessItWasItsOwnBaselinesFault) {
  const Json good = run_with("pass");
  Json bad = run_with("pass", "pass", true, "invalid");
  EXPECT_EQ(judged(good, bad).state, VerdictState::kInvalid);
  EXPECT_THAT(judged(bad, good).problems, ElementsAre(HasSubstr("the base's own run is invalid")));
  bad["comparison"] = Json::object();
  EXPECT_EQ(judged(good, bad).state, VerdictState::kPass);
}

TEST(OwnFailures, OldRecordsHaveNone) {
  EXPECT_EQ(judged(Json::object(), Json::object()).state, VerdictState::kPass);
}

}  // namespace
}  // namespace assay::harness
