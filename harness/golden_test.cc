// Goldens: what is kept, what counts as a change, and what cannot be compared.
#include "harness/golden.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/golden_check.h"
#include "harness/runner.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

// Token `id` leads `other` by `margin`.
StepFigures step(int id, float logprob, int other, float margin) {
  return {logprob, 0, 0, {{{id, logprob}, {other, logprob - margin}, {8, -20}, {9, -21}}}};
}

// Three tokens, the second of them nearly a tie.
Sample close_call() {
  Sample s = made_sample("ja-1", "c1", "ja", Correctness::kCorrect);
  s.ids = {65, 66, 258};
  s.prompt_hash = "abc";
  s.steps = {step(65, -0.01F, 70, 4), step(66, -0.7F, 71, 0.0003F), step(258, -0.001F, 72, 9)};
  return s;
}

Json run_of(const Plan& plan) {
  return {{"status", "complete"},
          {"identity", {{"model", "m1"}, {"tokenizer", "t1"}, {"backend", "cpu"}}},
          {"plan", plan.to_json()},
          {"provenance", {{"commit", "c0ffee"}, {"command", "assay run"}, {"started", "now"}}}};
}

Golden golden_of(const std::vector<Sample>& samples) {
  auto golden = make_golden(run_of(small_plan()), samples);
  if (!golden) throw std::runtime_error(golden.error().message);
  golden->noise["cpu"] = {.logprob = 1e-4, .margin = 5e-4, .n_positions = 3};
  return *std::move(golden);
}

GoldenCheck checked(const Golden& golden, const std::vector<StepFigures>& now) {
  GoldenCheck check;
  check.noise = golden.noise.at("cpu");
  check_reply(golden.replies.begin()->second, now, check);
  return check;
}

TEST(Golden, KeepsExactFiguresOnlyWhereTheChoiceWasCloseOrAnotherTokenWasTaken) {
  Sample s = close_call();
  s.steps[2].top[0].id = 73;  // a draw at temperature 0.6 took 258 instead
  const Golden golden = golden_of({s});
  const GoldenReply& r = golden.replies.at("sums/thinking/ja-1");
  ASSERT_EQ(r.top.size(), 2u);
  EXPECT_NEAR(r.margin_at(1), 0.0003, 1e-6);
  EXPECT_EQ(r.top1_at(2), 73);
  EXPECT_EQ(r.top1_at(0), 65);
  EXPECT_NEAR(r.margin_at(0), 4, 0.05);
  EXPECT_NEAR(r.margin_over(1, 71), 0.0003, 1e-6);
  EXPECT_TRUE(std::isinf(r.margin_over(1, 72)));
  EXPECT_FALSE(golden.identity.contains("backend")) << "the same answers are owed on every one";
  EXPECT_EQ(golden.suites[0]["version"], 3);
}

TEST(Golden, ComesBackFromItsFolderAsItWasAndTheSameBytesEachTime) {
  const TemporaryFolder folder;
  const Golden golden = golden_of({close_call()});
  ASSERT_TRUE(write_golden(folder.path() / "a", golden));
  const auto back = read_golden(folder.path() / "a");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->replies, golden.replies);
  EXPECT_EQ(back->identity, golden.identity);
  EXPECT_EQ(back->suites, golden.suites);
  EXPECT_EQ(back->noise.at("cpu").margin, 5e-4);
  EXPECT_EQ(back->name, "a");
  EXPECT_THAT(difference_of(golden, *back), IsEmpty());
  ASSERT_TRUE(write_golden(folder.path() / "b", *back));
  for (const char* file : {"golden.json", "replies.jsonl.gz"})
    EXPECT_EQ(*read_file(folder.path() / "a" / file), *read_file(folder.path() / "b" / file));
}

TEST(Golden, WhatIsBrokenIsNamed) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_golden(folder.path(), golden_of({close_call()})));
  const auto message = [&] {
    const auto golden = read_golden(folder.path());
    return golden ? "no error" : golden.error().message;
  };
  const std::string replies = *read_text_file(folder.path() / "replies.jsonl.gz");
  const auto put = [&](const std::string& text) {
    ASSERT_TRUE(write_file_atomic(folder.path() / "replies.jsonl.gz", text));
  };
  put(replies + replies);
  EXPECT_THAT(message(), AllOf(HasSubstr("replies.jsonl.gz:2"), HasSubstr("there twice")));
  put("");
  EXPECT_THAT(message(), HasSubstr("0 replies, golden.json says 1"));
  put(replies.substr(0, replies.size() / 2));
  EXPECT_THAT(message(), HasSubstr("replies.jsonl.gz:1"));
  std::string shorter = replies;
  shorter.replace(shorter.find("[65,66,258]"), 11, "[65,66]");
  put(shorter);
  EXPECT_THAT(message(), HasSubstr("2 ids, but 3 logprobs"));
  const std::string packed = gzip(replies);
  put(packed.substr(0, packed.size() - 9));
  EXPECT_THAT(message(), HasSubstr("cut off"));
  put(packed);
  EXPECT_EQ(message(), "no error");
  ASSERT_TRUE(write_file_atomic(folder.path() / "golden.json", "{\"format\": 9}"));
  EXPECT_THAT(message(), AllOf(HasSubstr("format 1, got 9"), HasSubstr("assay accept")));
}

TEST(Golden, ARecordWithoutItsMostLikelyTokensMakesNone) {
  Sample s = close_call();
  s.steps[1].top = {};
  const auto none = make_golden(run_of(small_plan()), std::vector{s});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, AllOf(HasSubstr("sums/thinking/ja-1"), HasSubstr("steps.bin")));
  s.steps.clear();
  EXPECT_FALSE(make_golden(run_of(small_plan()), std::vector{s}));
}

TEST(GoldenCheck, TheSameFiguresAreTheSame) {
  const Golden golden = golden_of({close_call()});
  const GoldenCheck check = checked(golden, close_call().steps);
  EXPECT_FALSE(check.diverged());
  EXPECT_EQ(check.n_same, 1);
  EXPECT_EQ(check.n_positions, 3);
  EXPECT_LE(check.max_logprob_change, GoldenReply::kLogprobUnit / 2 + 1e-9);
}

TEST(GoldenCheck, ATieThatFallsTheOtherWayIsNoneAndHidesNothingAfterIt) {
  const Golden golden = golden_of({close_call()});
  std::vector<StepFigures> now = close_call().steps;
  std::swap(now[1].top[0].id, now[1].top[1].id);  // margin 0.0003, floor 0.0005
  now[1].logprob -= 0.00003F;
  const GoldenCheck tie = checked(golden, now);
  EXPECT_FALSE(tie.diverged());
  EXPECT_EQ(tie.n_ties, 1);
  EXPECT_EQ(tie.n_same, 0);
  std::swap(now[2].top[0].id, now[2].top[1].id);  // margin 9
  const GoldenCheck after = checked(golden, now);
  ASSERT_EQ(after.divergences.size(), 1u);
  EXPECT_EQ(after.divergences[0].position, 2);
  EXPECT_EQ(after.divergences[0].was, 258);
  EXPECT_EQ(after.divergences[0].is, 72);
}

TEST(GoldenCheck, ATokenThatWasNotNearlyTiedIsNoTie) {
  const Golden golden = golden_of({close_call()});
  std::vector<StepFigures> now = close_call().steps;
  now[1].top[0].id = 99;  // the golden had 66 and 71 at one height, 99 nowhere
  EXPECT_TRUE(checked(golden, now).diverged());
}

TEST(GoldenCheck, AProbabilityThatMovedBeyondNoiseDivergesThoughNoTokenChanged) {
  const Golden golden = golden_of({close_call()});
  std::vector<StepFigures> now = close_call().steps;
  now[0].logprob -= 9e-5F;
  EXPECT_FALSE(checked(golden, now).diverged()) << "floor 1e-4";
  now[0].logprob -= 3e-5F;
  const GoldenCheck check = checked(golden, now);
  ASSERT_TRUE(check.diverged());
  EXPECT_FALSE(check.divergences[0].other_token);
  EXPECT_NEAR(check.divergences[0].logprob_change, -1.2e-4, 1e-5);
}

TEST(GoldenCheck, TheFirstOtherTokenIsToldBeforeAMovedProbability) {
  const Golden golden = golden_of({close_call()});
  std::vector<StepFigures> now = close_call().steps;
  now[0].logprob -= 1;
  now[2].top[0].id = 7;
  const GoldenCheck check = checked(golden, now);
  ASSERT_EQ(check.divergences.size(), 1u);
  EXPECT_EQ(check.divergences[0].position, 2);
  EXPECT_EQ(check.divergences[0].n_positions, 2);
}

// A target that gives every token of a reply the same figures, and can be told to change its mind.
class Scorer : public FakeTarget {
 public:
  Scorer() : FakeTarget(good_answer) {}
  Json identity() const override { return id; }
  Result<void> score(std::span<const GivenReply> replies, const OnScored& on_done,
                     std::stop_token) override {
    if (!out_of_order.empty()) return fail("{}", out_of_order);
    for (std::size_t i = 0; i < replies.size(); ++i) {
      std::vector<StepFigures> steps;
      for (const int token : replies[i].ids) steps.push_back(step(token, -0.25F + shift, 7, 3));
      on_done(i, std::move(steps));
    }
    return {};
  }
  Json id = {{"model", "m1"}, {"tokenizer", "t1"}, {"backend", "cpu"}};
  float shift = 0;
};

class GoldenOfAPlan : public testing::Test {
 protected:
  GoldenOfAPlan() {
    std::vector<Sample> samples;
    for (const PlanItem& item : plan_.items) {
      Sample s = made_sample(plan_.case_of(item).id, "c", "ja", Correctness::kCorrect,
                             plan_.arm_of(item).name);
      s.ids = {65, 258};
      s.steps = {step(65, -0.25F, 7, 3), step(258, -0.25F, 7, 3)};
      s.prompt_hash = prompt_of(plan_, item, target_)->hash;
      samples.push_back(std::move(s));
    }
    golden_ = golden_of(samples);
    golden_.name = "g";
  }
  GoldenCheck check() { return check_golden(golden_, "golden/m/runs/g", plan_, target_); }

  Plan plan_ = small_plan();
  Scorer target_;
  Golden golden_;
};

TEST_F(GoldenOfAPlan, HoldsAndABrokenBuildDoesNot) {
  EXPECT_EQ(check().n_replies, 14);
  EXPECT_FALSE(check().diverged());
  EXPECT_EQ(check().reason, "");
  target_.shift = 0.01F;
  Verdict verdict;
  verdict.state = VerdictState::kPass;
  const GoldenCheck bad[] = {check()};
  add_goldens(verdict, bad);
  EXPECT_EQ(verdict.state, VerdictState::kRegression);
  ASSERT_EQ(verdict.problems.size(), 1u);
  EXPECT_THAT(verdict.problems[0], AllOf(HasSubstr("14 of 14 replies"), HasSubstr("0.01 nats")));
}

TEST_F(GoldenOfAPlan, OnlyWhatIsAskedIsLookedAt) {
  plan_ = small_plan(Profile::kQuick, {.arms = {"direct"}});
  EXPECT_EQ(check().n_replies, 5);
  EXPECT_EQ(check().n_left_out, 9);
}

TEST_F(GoldenOfAPlan, AReplyLongerThanTheContextIsLeftOut) {
  // zh-2 is 25 bytes and, in the direct arm, two tags; its reply has two tokens.
  target_.context = 29;
  EXPECT_EQ(check().n_replies, 14);
  target_.context = 28;
  EXPECT_EQ(check().reason, "");
  EXPECT_EQ(check().n_replies, 13);
  EXPECT_EQ(check().n_left_out, 1);
}

TEST_F(GoldenOfAPlan, AnotherKeyIsNotComparableWhichIsNoRegression) {
  const auto reason = [&](auto change) {
    const Golden golden = golden_;
    const Json id = target_.id;
    const Plan plan = plan_;
    change();
    const GoldenCheck one[] = {check()};
    golden_ = golden;
    target_.id = id;
    plan_ = plan;
    Verdict verdict;
    verdict.state = VerdictState::kPass;
    add_goldens(verdict, one);
    EXPECT_EQ(verdict.state, VerdictState::kInvalid);
    EXPECT_EQ(exit_code_of(verdict.state), 3);
    return one[0].reason;
  };
  EXPECT_THAT(reason([&] { target_.id["tokenizer"] = "t2"; }), HasSubstr("tokenizer"));
  EXPECT_THAT(reason([&] { plan_.suites[0].version = 4; }),
              AllOf(HasSubstr("version 3 of suite sums"), HasSubstr("version 4")));
  EXPECT_THAT(reason([&] { plan_.suites[0].arms[0].sampling->temperature = 0.6; }),
              AllOf(HasSubstr("sums/thinking"), HasSubstr("0.6")));
  EXPECT_THAT(reason([&] { target_.id["backend"] = "cuda"; }),
              AllOf(HasSubstr("no noise floor of the backend cuda"), HasSubstr("--noise-backend")));
  EXPECT_THAT(reason([&] { golden_.replies.begin()->second.prompt_hash = "other"; }),
              AllOf(HasSubstr("prompt of sums/"), HasSubstr("assay accept")));
}

TEST_F(GoldenOfAPlan, ADepartureIsOneWhateverAnotherGoldenCannotSay) {
  GoldenCheck departs, silent;
  departs.name = "a";
  departs.divergences.push_back({});
  silent.name = "b";
  silent.reason = "another suite version";
  for (const auto& checks : {std::vector{departs, silent}, std::vector{silent, departs}}) {
    Verdict verdict;
    verdict.state = VerdictState::kPass;
    add_goldens(verdict, checks);
    EXPECT_EQ(verdict.state, VerdictState::kRegression);
    EXPECT_EQ(verdict.problems.size(), 2u);
  }
}

TEST_F(GoldenOfAPlan, WhoCannotScoreIsNotComparable) {
  FakeTarget server(good_answer);
  golden_.identity = server.identity();
  golden_.noise[""] = {};
  const GoldenCheck check = check_golden(golden_, "f", plan_, server);
  EXPECT_THAT(check.reason, HasSubstr("cannot say what it thinks"));
}

TEST_F(GoldenOfAPlan, ATargetThatCannotBeginHasNotPassed) {
  target_.out_of_order = "no memory is free";
  EXPECT_EQ(check().reason, "no memory is free");
  const auto noise = measure_noise(golden_, plan_, target_, 5);
  ASSERT_FALSE(noise);
  EXPECT_EQ(noise.error().message, "no memory is free");
}

TEST_F(GoldenOfAPlan, TheNoiseFloorIsTwiceTheLargestChangeOfAnotherArithmetic) {
  golden_.noise.clear();
  golden_.made["backend"] = "cpu";
  Scorer other;
  other.id["backend"] = "reference";
  other.shift = 0.003F;
  ASSERT_TRUE(measure_noise(golden_, plan_, other, 5));
  EXPECT_NEAR(golden_.noise.at("reference").logprob, 0.006, 1e-6);
  EXPECT_EQ(golden_.noise.at("reference").n_positions, 10);
  EXPECT_EQ(golden_.noise.at("cpu").logprob, golden_.noise.at("reference").logprob);
}

TEST(GoldenFolders, AreFoundByTheModelsFingerprint) {
  const TemporaryFolder folder;
  const Golden golden = golden_of({close_call()});
  ASSERT_TRUE(write_golden(folder.path() / "some-model" / "runs" / "first", golden));
  fs::create_directories(folder.path() / "other" / "model");
  const auto found = find_goldens(folder.path(), {{"model", "m1"}});
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->size(), 1u);
  EXPECT_THAT(*find_goldens(folder.path(), {{"model", "m2"}}), IsEmpty());
  EXPECT_THAT(find_goldens(folder.path() / "nowhere", {{"model", "m1"}}).error().message,
              HasSubstr("expected a folder of goldens"));
  EXPECT_THAT(*find_goldens(found->front(), {{"model", "another"}}),
              testing::ElementsAre(found->front()))
      << "the one that is named";
  fs::create_directories(folder.path() / "some-model" / "runs" / "empty");
  EXPECT_FALSE(find_goldens(folder.path(), {{"model", "m1"}})) << "a folder of no golden";
}

TEST(GoldenDifferences, SayWhatAcceptingWouldChange) {
  Sample other = close_call();
  other.id = "ja-2";
  const Golden was = golden_of({close_call(), other});
  Sample changed = close_call(), moved = other, fresh = other;
  changed.ids[1] = 71;
  moved.steps[0].logprob -= 0.002F;
  fresh.id = "ja-3";
  const auto all = difference_of(was, golden_of({changed, fresh}));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].kind, GoldenDifference::Kind::kNew);
  EXPECT_EQ(all[1].kind, GoldenDifference::Kind::kChanged);
  EXPECT_EQ(all[1].position, 1);
  EXPECT_EQ(all[1].was, 66);
  EXPECT_EQ(all[1].is, 71);
  EXPECT_NEAR(all[1].margin, 0.0003, 1e-6);
  EXPECT_EQ(all[2].kind, GoldenDifference::Kind::kGone);
  const auto figures = difference_of(was, golden_of({close_call(), moved}));
  ASSERT_EQ(figures.size(), 1u);
  EXPECT_EQ(figures[0].kind, GoldenDifference::Kind::kFigures);
  EXPECT_NEAR(figures[0].logprob_change, 0.002, 1e-5);
}

}  // namespace
}  // namespace assay::harness
