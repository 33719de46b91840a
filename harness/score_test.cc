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
      prompt, {.ids = reply, .finish = std::string(finish)}, target.roles(),
      [](std::span<const int> some) { return target.decode(some); },
      {.scoring = Scoring::kNumber, .expected = std::string(expected), .language = "en"});
}

Scored score_as(const Question& question, std::string_view thinking, std::string_view answer) {
  static const FakeTarget target(good_answer);
  return score_reply(
      ids({"?", kOpen}), {.ids = FakeTarget::thought(thinking, answer), .finish = "stop"},
      target.roles(), [](std::span<const int> some) { return target.decode(some); }, question);
}

TEST(Score, ATextIsCorrectIfItNamesAnAcceptedAnswer) {
  const Question q = {.scoring = Scoring::kText, .expected = "北岳|Kita-dake", .language = "ja"};
  const Scored right = score_as(q, "思い出す。", "日本で二番目に高い山は北岳です。");
  EXPECT_EQ(right.outcome.correctness, Correctness::kCorrect);
  ASSERT_TRUE(right.extraction);
  EXPECT_EQ(right.extraction->value, "北岳");
  EXPECT_FALSE(right.reached);
  const Scored wrong = score_as(q, "北岳である。", "富士山です。");
  EXPECT_EQ(wrong.outcome.correctness, Correctness::kWrong);
  EXPECT_TRUE(wrong.reached) << "it stands in the thinking";
}

TEST(Score, AnAnswerThatNobodyJudgesIsAnswered) {
  const Scored s = score_as({.scoring = Scoring::kNone, .language = "en"}, "hm", "Rest well.");
  EXPECT_EQ(s.outcome.correctness, Correctness::kNotJudged);
  EXPECT_EQ(class_of(s.outcome), "answered");
}

TEST(Score, TheLanguageOfAnswerAndReasoningMustBeAsAsked) {
  const Question q = {.scoring = Scoring::kLanguage, .language = "ja", .reasoning_language = "ja"};
  const char* const ja = "ユーザーは散歩について尋ねている。体を動かすことは健康に良いと思う。";
  const char* const ja_answer =
      "散歩は体に良く、気分も良くなります。毎日少しずつ歩いてみましょう。";
  const char* const en = "The user asks about walking. It is good for the body and the mind.";
  EXPECT_EQ(score_as(q, ja, ja_answer).outcome.correctness, Correctness::kCorrect);
  const Scored thought = score_as(q, en, ja_answer);
  EXPECT_EQ(thought.outcome.correctness, Correctness::kWrong);
  EXPECT_EQ(thought.thinking_language, "en");
  EXPECT_EQ(thought.answer_language, "ja");
  EXPECT_EQ(score_as(q, ja, en).language_right, false);
  const Scored neutral = score_as(q, "2+2=4", "4");
  EXPECT_EQ(neutral.language_right, std::nullopt);
  EXPECT_EQ(neutral.outcome.correctness, Correctness::kUnextractable);
}

TEST(Score, ChineseInTheOtherScriptIsAnotherLanguageOnlyWhereBothShowTheirs) {
  const auto right = [](const char* question, const char* answer) {
    return score_as({.scoring = Scoring::kLanguage, .language = "zh", .text = question}, "", answer)
        .language_right;
  };
  const char* const simplified = "请问怎么样才能学会游泳这个运动？";
  const char* const traditional = "請問怎麼樣才能學會游泳這個運動？";
  const char* const in_simplified = "学习游泳需要每天练习，并且要注意安全，慢慢就会进步。";
  const char* const in_traditional = "學習游泳需要每天練習，並且要注意安全，慢慢就會進步。";
  EXPECT_EQ(right(simplified, in_simplified), true);
  EXPECT_EQ(right(traditional, in_traditional), true);
  EXPECT_EQ(right(simplified, in_traditional), false);
  EXPECT_EQ(right(traditional, in_simplified), false);
  EXPECT_EQ(right("请用繁体字回答：怎么样才能学会游泳？", in_traditional), true)
      << "it was asked for";
  EXPECT_EQ(right(traditional, "每天都去游泳，慢慢地游，不要急，一定可以的。"), true) << "neither";
}

TEST(Score, ARightNumberInTheThinkingOfAWrongAnswerWasReached) {
  EXPECT_TRUE(score(ids({"so it is 1016.", kClose, "It is 17.", kStop}), "stop").reached);
  EXPECT_FALSE(score(ids({"so it is 10165.", kClose, "It is 17.", kStop}), "stop").reached);
  EXPECT_FALSE(score(ids({"1016", kClose, "It is 1016.", kStop}), "stop").reached);
  EXPECT_TRUE(score(ids({"it is 1016. Wait, no, is it"}), "length").reached)
      << "it never closed, but had the answer";
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
