#include "harness/confirm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Right is `right(case, draw)`; each case a cluster of its own, asked `n_draws` times.
std::vector<Sample> draws(int n_cases, int n_draws, const std::function<bool(int, int)>& right) {
  std::vector<Sample> out;
  for (int i = 0; i < n_cases; ++i)
    for (int draw = 1; draw <= n_draws; ++draw) {
      const std::string id = fmt::format("en-{}", i);
      out.push_back(
          made_sample(id, id, "en", right(i, draw) ? Correctness::kCorrect : Correctness::kWrong));
      out.back().repeat = n_draws == 1 ? 0 : draw;
    }
  return out;
}

CompareRules sampled() {
  CompareRules rules;
  rules.sampled_arms.insert("sums/thinking");
  return rules;
}

const auto kAlways = [](int, int) { return true; };

struct Night {
  std::vector<Sample> base = draws(100, 1, kAlways);
  std::vector<Sample> candidate = draws(100, 1, [](int i, int) { return i >= 20; });
  Comparison first = compare(base, candidate, sampled());
};

TEST(Confirm, AsksAllDiscordantCasesAndAsManyControls) {
  auto base = draws(100, 1, [](int i, int) { return i != 50 && i != 51; });
  const auto candidate = draws(100, 1, [](int i, int) { return i >= 20; });
  const Comparison first = compare(base, candidate, sampled());
  const auto keys = confirm_keys(first, base, candidate);
  EXPECT_THAT(keys, SizeIs(44)) << "20 regressed, 2 fixed, 22 controls";
  for (int i : {0, 7, 19, 50, 51})
    EXPECT_THAT(keys, Contains(fmt::format("sums/thinking/en-{}", i)));
  EXPECT_EQ(keys, confirm_keys(first, base, candidate)) << "by a rule, not at random";
  std::reverse(base.begin(), base.end());
  EXPECT_EQ(keys, confirm_keys(first, base, candidate)) << "whatever the order";
}

TEST(Confirm, ACaseWithRepeatsIsAskedOnce) {
  const auto base = draws(60, 3, kAlways);
  const auto candidate = draws(60, 3, [](int i, int draw) { return i >= 20 || draw == 2; });
  const Comparison first = compare(base, candidate, sampled());
  const auto keys = confirm_keys(first, base, candidate);
  EXPECT_THAT(keys, SizeIs(40));
  EXPECT_THAT(keys, Contains("sums/thinking/en-3"));
}

TEST(Confirm, NothingSuspectedNeedsNothing) {
  const auto base = draws(100, 1, kAlways);
  const Comparison first = compare(base, base, sampled());
  EXPECT_THAT(confirm_keys(first, base, base), IsEmpty());
  EXPECT_EQ(confirm(first, {}, {}).state, ConfirmationState::kNotNeeded);
  const Comparison decided = compare(base, draws(100, 1, [](int i, int) { return i >= 20; }));
  EXPECT_THAT(confirm_keys(decided, base, base), IsEmpty()) << "the same bits would come again";
}

TEST(Confirm, ThePlanAsksTheCasesAgainWithOtherDraws) {
  const Plan plan = small_plan();
  const std::vector<std::string> keys = {"sums/thinking/en-1", "sums/direct/ja-2", "sums/direct/x"};
  const Plan again = confirmation_plan(plan, keys, 4);
  ASSERT_THAT(again.items, SizeIs(8));
  std::vector<std::string> asked;
  for (const PlanItem& item : again.items) asked.push_back(again.key_of(item));
  EXPECT_THAT(asked, Contains("sums/thinking/en-1#1"));
  EXPECT_THAT(asked, Contains("sums/direct/ja-2#4"));
  EXPECT_NE(again.options.seed, plan.options.seed);
  EXPECT_EQ(again.options.seed, confirmation_seed(plan.options.seed));
  EXPECT_NE(confirmation_seed(1), confirmation_seed(2));
}

TEST(Confirm, ADropThatComesAgainIsARegression) {
  const Night night;
  ASSERT_TRUE(night.first.needs_confirmation());
  // The damaged cases are right half of the time now, their controls always.
  const auto again = draws(40, 4, [](int i, int draw) { return i >= 20 || draw % 2 == 0; });
  const Confirmation second = confirm(night.first, draws(40, 4, kAlways), again);
  EXPECT_EQ(second.state, ConfirmationState::kConfirmed);
  ASSERT_THAT(second.rows, SizeIs(2)) << "all, and English";
  EXPECT_EQ(second.rows[0].n, 160);
  EXPECT_EQ(second.rows[0].n_base, 160);
  EXPECT_EQ(second.rows[0].n_candidate, 120);
  EXPECT_DOUBLE_EQ(second.rows[0].p, std::ldexp(2.0, -20)) << "20 clusters fell, all of them";
  const Comparison settled_now = settled(night.first, second);
  EXPECT_FALSE(settled_now.needs_confirmation());
  EXPECT_THAT(settled_now.regressions, Contains(HasSubstr("fell again, from 160 to 120 of 160")));
  EXPECT_EQ(settled_now.rows[0].verdict, RowVerdict::kRegression);
}

TEST(Confirm, LuckIsNotSeenAgain) {
  const Night night;
  const auto luck = [](int i, int draw) { return (i + draw) % 3 != 0; };
  const auto other = [](int i, int draw) { return (i + draw) % 3 != 1; };
  const Confirmation second = confirm(night.first, draws(40, 4, luck), draws(40, 4, other));
  EXPECT_EQ(second.state, ConfirmationState::kRejected);
  const Comparison settled_now = settled(night.first, second);
  EXPECT_THAT(settled_now.regressions, IsEmpty());
  EXPECT_FALSE(settled_now.needs_confirmation());
  EXPECT_EQ(settled_now.rows[0].verdict, RowVerdict::kPass);
}

TEST(Confirm, GettingBetterTheSecondTimeIsNoRegression) {
  const Night night;
  const auto worse = [](int i, int) { return i >= 20; };
  const Confirmation second = confirm(night.first, draws(40, 4, worse), draws(40, 4, kAlways));
  EXPECT_LT(second.rows[0].p_holm, kAlpha);
  EXPECT_EQ(second.state, ConfirmationState::kRejected);
}

TEST(Confirm, LongerThinkingThatWasDrawnIsDecidedOnFreshDraws) {
  const auto thinking = [](int n_draws, double factor) {
    auto out = draws(60, n_draws, kAlways);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i].n_thinking_tokens = static_cast<int>(factor * (100 + static_cast<double>(i % 50)));
    return out;
  };
  const auto base = thinking(1, 1), longer = thinking(1, 1.3);
  const Comparison first = compare(base, longer, sampled());
  EXPECT_EQ(first.lengths[0].verdict, RowVerdict::kSuspected);
  EXPECT_THAT(first.regressions, IsEmpty());
  EXPECT_TRUE(first.needs_confirmation());
  EXPECT_THAT(confirm_keys(first, base, longer), SizeIs(60)) << "every case of the row";

  const Confirmation again = confirm(first, thinking(4, 1), thinking(4, 1.3));
  EXPECT_EQ(again.state, ConfirmationState::kConfirmed);
  EXPECT_EQ(again.rows[0].metric, kLengthMetric);
  EXPECT_NEAR(again.rows[0].ratio, 1.3, 0.02);
  EXPECT_THAT(again.regressions, testing::Contains(testing::HasSubstr("times as long again")));
  EXPECT_EQ(settled(first, again).lengths[0].verdict, RowVerdict::kRegression);

  const Confirmation luck = confirm(first, thinking(4, 1), thinking(4, 1));
  EXPECT_EQ(luck.state, ConfirmationState::kRejected);
  EXPECT_EQ(settled(first, luck).lengths[0].verdict, RowVerdict::kPass);
  EXPECT_THAT(settled(first, luck).suspicions, IsEmpty());
}

TEST(Confirm, MissingDrawsAreInconclusive) {
  const Night night;
  const auto base = draws(40, 4, kAlways);
  auto again = draws(40, 4, [](int i, int) { return i >= 20; });
  for (std::size_t i = 0; i < 20; ++i) again[i].outcome.termination = Termination::kError;
  const Confirmation errors = confirm(night.first, base, again);
  EXPECT_EQ(errors.state, ConfirmationState::kInconclusive);
  EXPECT_THAT(errors.problems, Contains(HasSubstr("20 of 160 pairs of draws")));
  EXPECT_TRUE(settled(night.first, errors).needs_confirmation());
  again.resize(100);
  EXPECT_EQ(confirm(night.first, base, again).state, ConfirmationState::kInconclusive);
  EXPECT_EQ(confirm(night.first, {}, {}).state, ConfirmationState::kInconclusive);
}

}  // namespace
}  // namespace assay::harness
