#include "harness/outcome.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace assay::harness {
namespace {

std::vector<int> repeated(std::vector<int> lead, const std::vector<int>& block, int copies) {
  for (int i = 0; i < copies; ++i) lead.insert(lead.end(), block.begin(), block.end());
  return lead;
}

TEST(SuffixLoop, FindsTheShortestPeriodAndWhereItStarts) {
  std::vector<int> block;
  for (int i = 0; i < 16; ++i) block.push_back(100 + i);
  const auto loop = find_suffix_loop(repeated({1, 2, 3, 4, 5}, block, 5));
  ASSERT_TRUE(loop);
  EXPECT_EQ(loop->start, 5);
  EXPECT_EQ(loop->period, 16);
  EXPECT_EQ(loop->copies, 5);
}

TEST(SuffixLoop, ALastCopyMayBeCutShort) {
  auto ids = repeated({9}, {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17}, 4);
  ids.insert(ids.end(), {1, 2, 3});
  const auto loop = find_suffix_loop(ids);
  ASSERT_TRUE(loop);
  EXPECT_EQ(loop->start, 1);
  EXPECT_EQ(loop->copies, 4);
}

TEST(SuffixLoop, OneTokenOverAndOverHasPeriodOne) {
  const auto loop = find_suffix_loop(repeated({1, 2}, {7}, 64));
  ASSERT_TRUE(loop);
  EXPECT_EQ(loop->period, 1);
  EXPECT_EQ(loop->start, 2);
}

TEST(SuffixLoop, TheLongestPeriodIsFound) {
  std::vector<int> block;
  for (int i = 0; i < kMaxPeriod; ++i) block.push_back(i * 7919 % 10007);
  ASSERT_TRUE(find_suffix_loop(repeated({}, block, kMinCopies)));
  EXPECT_EQ(find_suffix_loop(repeated({}, block, kMinCopies))->period, kMaxPeriod);
  EXPECT_FALSE(find_suffix_loop(repeated({}, block, kMinCopies - 1)));
}

TEST(SuffixLoop, HonestRepetitionIsNotALoop) {
  EXPECT_FALSE(find_suffix_loop(repeated({1, 2}, {0}, 12)));    // 1,000,000,000,000
  EXPECT_FALSE(find_suffix_loop(repeated({}, {5, 6, 7}, 20)));  // under 64 tokens
  std::vector<int> table;  // a table: similar rows, never equal ones
  for (int row = 0; row < 200; ++row) table.insert(table.end(), {1, 2, 1000 + row, 3, 4});
  EXPECT_FALSE(find_suffix_loop(table));
  EXPECT_FALSE(find_suffix_loop({}));
}

TEST(Outcome, OneClassByThePublishedPrecedence) {
  Outcome o;
  o.correctness = Correctness::kCorrect;
  o.degeneration = Degeneration::kLoopExact;
  EXPECT_EQ(class_of(o), "correct");  // it stopped by itself and answered
  o.correctness = Correctness::kNotJudged;
  o.termination = Termination::kNoClose;
  EXPECT_EQ(class_of(o), "loop_exact");
  o.degeneration = Degeneration::kLoopNear;
  EXPECT_EQ(class_of(o), "loop_near");
  o.degeneration = Degeneration::kDegenerateToken;
  EXPECT_EQ(class_of(o), "degenerate_token");
  o.degeneration = Degeneration::kNone;
  EXPECT_EQ(class_of(o), "no_close");
  o.termination = Termination::kError;
  o.degeneration = Degeneration::kLoopExact;
  EXPECT_EQ(class_of(o), "error");
}

TEST(Outcome, DriftNamesWhyAFinishedAnswerIsNotCorrect) {
  Outcome o;
  o.degeneration = Degeneration::kLanguageDrift;
  for (const auto c : {Correctness::kWrong, Correctness::kUnextractable, Correctness::kNotJudged}) {
    o.correctness = c;
    EXPECT_EQ(class_of(o), "language_drift") << name_of(c);
  }
  o.correctness = Correctness::kCorrect;
  EXPECT_EQ(class_of(o), "correct");
  // A limit was reached for another reason than the language.
  o.correctness = Correctness::kNotJudged;
  o.termination = Termination::kTruncatedAnswer;
  EXPECT_EQ(class_of(o), "truncated_answer");
}

TEST(Outcome, AFinishedAnswerThatNobodyJudgesIsAnswered) {
  Outcome o;
  EXPECT_EQ(class_of(o), "answered");
  o.degeneration = Degeneration::kLoopNear;  // a table, and then it stopped
  EXPECT_EQ(class_of(o), "answered");
  o.termination = Termination::kTruncatedAnswer;
  o.degeneration = Degeneration::kNone;
  EXPECT_EQ(class_of(o), "truncated_answer");
}

TEST(Outcome, EveryCombinationHasAClassAndEveryClassACombination) {
  std::set<std::string_view> seen;
  for (int t = 0; t < 7; ++t)
    for (int d = 0; d < 5; ++d)
      for (int c = 0; c < 4; ++c)
        seen.insert(class_of({static_cast<Termination>(t), static_cast<Degeneration>(d),
                              static_cast<Correctness>(c)}));
  const auto all = all_classes();
  EXPECT_EQ(seen, std::set<std::string_view>(all.begin(), all.end()));
}

// The page has its own list, as it is a file of its own.
TEST(Outcome, ThePageShowsTheClassesInOurOrder) {
  std::ifstream file(ASSAY_SOURCE_DIR "/reports/report.js");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  std::string list = "const classOrder = [";
  for (const std::string_view name : all_classes())
    list += (name == "correct" ? "'" : ", '") + std::string(name) + "'";
  EXPECT_NE(page.find(list + "];"), std::string::npos) << list;
}

TEST(Outcome, EveryNameComesBack) {
  for (int i = 0; i < 7; ++i) {
    const auto t = static_cast<Termination>(i);
    EXPECT_EQ(parse_termination(name_of(t)), t);
  }
  for (int i = 0; i < 4; ++i) {
    const auto c = static_cast<Correctness>(i);
    EXPECT_EQ(parse_correctness(name_of(c)), c);
  }
  for (int i = 0; i < 5; ++i) {
    const auto d = static_cast<Degeneration>(i);
    EXPECT_EQ(parse_degeneration(name_of(d)), d);
  }
  EXPECT_FALSE(parse_degeneration("answered"));  // a class, no part of an outcome
}

}  // namespace
}  // namespace assay::harness
