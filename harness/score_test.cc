#include "harness/score.h"

#include <gtest/gtest.h>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

constexpr int kOpen = FakeTarget::kOpen, kClose = FakeTarget::kClose, kStop = FakeTarget::kStop;

std::vector<int> ids(std::initializer_list<std::variant<int, const char*>> parts) {
  std::vector<int> out;
  for (const auto& part : parts) {
    if (const int* id = std::get_if<int>(&part)) {
      out.push_back(*id);
    } else {
      for (const int byte : FakeTarget::bytes(std::get<const char*>(part))) out.push_back(byte);
    }
  }
  return out;
}

Scored score(const std::vector<int>& reply, std::string_view finish, bool thinking = true,
             std::string_view expected = "1016") {
  static const FakeTarget target(good_answer);
  const std::vector<int> prompt = thinking ? ids({"?", kOpen}) : ids({"?", kOpen, kClose});
  return score_reply(
      prompt, {reply, std::string(finish), 0, 0}, target.roles(),
      [](std::span<const int> some) { return target.decode(some); }, expected, "en");
}

TEST(Score, OnlyTheFinalAnswerIsScored) {
  // The right number in the thinking does not help a wrong answer.
  const Scored s = score(ids({"1016, sure", kClose, "It is 17.", kStop}), "stop");
  EXPECT_EQ(s.thinking, "1016, sure");
  EXPECT_EQ(s.answer, "It is 17.");
  EXPECT_EQ(s.n_thinking_tokens, 10);
  EXPECT_EQ(s.outcome.correctness, Correctness::kWrong);
  EXPECT_EQ(score(ids({"17", kClose, "1016", kStop}), "stop").outcome.correctness,
            Correctness::kCorrect);
}

TEST(Score, AQuestionInPercentTakesTheNumberOfPercents) {
  const auto judged = [](const char* reply, std::string_view expected) {
    return score(ids({reply, kStop}), "stop", false, expected).outcome.correctness;
  };
  EXPECT_EQ(judged("The answer is 50%.", "50%"), Correctness::kCorrect);
  EXPECT_EQ(judged("The answer is 50.", "50%"), Correctness::kCorrect);
  EXPECT_EQ(judged("The answer is 50%.", "1/2"), Correctness::kCorrect);
  EXPECT_EQ(judged("The answer is 50%.", "50"), Correctness::kWrong);
}

TEST(Score, ThinkingIsSplitByTokenNotByString) {
  const Scored s = score(ids({"they write </think> 5", kClose, "1016", kStop}), "stop");
  EXPECT_EQ(s.thinking, "they write </think> 5");
  EXPECT_EQ(s.outcome.correctness, Correctness::kCorrect);
}

TEST(Score, AReplyThatNeverClosesIsNotJudged) {
  for (const char* finish : {"length", "thinking_budget", "context"}) {
    const Scored s = score(ids({"so 5, wait, 17"}), finish);
    EXPECT_EQ(s.outcome.termination, Termination::kNoClose) << finish;
    EXPECT_EQ(s.outcome.correctness, Correctness::kNotJudged);
    EXPECT_FALSE(s.extraction);
    EXPECT_EQ(s.answer, "");
  }
  const Scored s = score(ids({"the answer is 1016", kStop}), "stop");
  EXPECT_EQ(s.outcome.termination, Termination::kEosInThink);
  EXPECT_EQ(s.outcome.correctness, Correctness::kNotJudged);
}

TEST(Score, ATruncatedAnswerIsNotWrong) {
  const Scored s = score(ids({"x", kClose, "It is 101"}), "length");
  EXPECT_EQ(s.outcome.termination, Termination::kTruncatedAnswer);
  EXPECT_EQ(s.outcome.correctness, Correctness::kNotJudged);
}

TEST(Score, AnEmptyAnswerIsItsOwnClass) {
  EXPECT_EQ(score(ids({"x", kClose, " \n　", kStop}), "stop").outcome.termination,
            Termination::kClosedEmpty);
  EXPECT_EQ(score(ids({"x", kClose, "hm", kStop}), "stop").outcome.correctness,
            Correctness::kUnextractable);
}

TEST(Score, WithoutThinkingEverythingIsTheAnswer) {
  const Scored s = score(ids({"1016", kStop}), "stop", false);
  EXPECT_EQ(s.outcome.termination, Termination::kClosed);
  EXPECT_EQ(s.outcome.correctness, Correctness::kCorrect);
  EXPECT_EQ(s.n_thinking_tokens, 0);
}

TEST(Score, StrayThinkTagsInTheAnswerAreCounted) {
  const Scored s = score(ids({"x", kClose, "1016", kOpen, "y", kClose, kStop}), "stop");
  EXPECT_EQ(s.n_stray_tags, 2);
  EXPECT_EQ(score(ids({"1016", kStop}), "stop", false).n_stray_tags, 0);
}

// think, answer, think again, until the limit: reported for a quantised GLM on "你好".
TEST(Score, AThinkAnswerCycleIsCountedAndItsExactCopiesAreALoop) {
  std::vector<int> reply = ids({"x", kClose, "1016"});
  for (const char* thought : {"no", "or 17", "hm, 5"})
    for (const int id : ids({kOpen, thought, kClose, "1016"})) reply.push_back(id);
  Scored s = score(reply, "length");
  EXPECT_EQ(s.n_stray_tags, 6);
  EXPECT_EQ(s.n_thinking_tokens, 1);  // the first </think> ends the thinking for good
  EXPECT_EQ(class_of(s.outcome), "truncated_answer");

  reply = ids({"x", kClose});
  for (int i = 0; i < 8; ++i)
    for (const int id : ids({kOpen, "hello?", kClose, "Hi."})) reply.push_back(id);
  s = score(reply, "length");
  EXPECT_EQ(s.n_stray_tags, 16);
  EXPECT_EQ(class_of(s.outcome), "loop_exact");
  EXPECT_EQ(s.outcome.loop_period, 11);
  EXPECT_EQ(s.outcome.loop_start, 2);
}

TEST(Score, ALoopInThinkingIsNamedWithItsStart) {
  std::vector<int> reply = ids({"start "});
  for (int i = 0; i < 20; ++i)
    for (const int byte : FakeTarget::bytes("wait, ")) reply.push_back(byte);
  const Scored s = score(reply, "length");
  EXPECT_EQ(s.outcome.degeneration, Degeneration::kLoopExact);
  EXPECT_EQ(s.outcome.loop_period, 6);
  EXPECT_LE(s.outcome.loop_start, 6);
  EXPECT_EQ(class_of(s.outcome), "loop_exact");
}

TEST(Score, NanInTheLogitsIsAnError) {
  const Scored s = score(ids({"x", kClose, "1016"}), "non_finite");
  EXPECT_EQ(s.outcome.termination, Termination::kError);
  EXPECT_EQ(s.outcome.correctness, Correctness::kNotJudged);
}

}  // namespace
}  // namespace assay::harness
