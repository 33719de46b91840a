#include "harness/outcome.h"

#include <gtest/gtest.h>

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
  o.degeneration = Degeneration::kDegenerateToken;
  EXPECT_EQ(class_of(o), "degenerate_token");
  o.degeneration = Degeneration::kNone;
  EXPECT_EQ(class_of(o), "no_close");
  o.termination = Termination::kError;
  o.degeneration = Degeneration::kLoopExact;
  EXPECT_EQ(class_of(o), "error");
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
  EXPECT_FALSE(parse_degeneration("loop_near"));  // not judged yet, so not a value
}

}  // namespace
}  // namespace assay::harness
