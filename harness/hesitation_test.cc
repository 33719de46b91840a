#include "harness/hesitation.h"

#include <gtest/gtest.h>

namespace assay::harness {
namespace {

TEST(Hesitation, MarkersOfEachLanguageAreCounted) {
  const HesitationCount en =
      count_hesitations("Wait, 8 * 127? Hmm. Actually, let me check. But alternatively, 1016.");
  EXPECT_EQ(en.en, 6);
  EXPECT_EQ(en.total(), 6);
  const HesitationCount ja = count_hesitations(
      "待って、箱は8個か。いや、7個ではなく8個だ。でも、もう一度数える。しかし同じ。");
  EXPECT_EQ(ja.ja, 6);
  EXPECT_EQ(ja.total(), 6);
  const HesitationCount zh =
      count_hesitations("等等，不是8箱。不过题目说8箱，但是没说原来有。不对，重新算。然而一样。");
  EXPECT_EQ(zh.zh, 6);
  EXPECT_EQ(zh.total(), 6);
}

TEST(Hesitation, TheLongestMarkerCountsOnce) {
  EXPECT_EQ(count_hesitations("But wait, 5.").en, 1);
  EXPECT_EQ(count_hesitations("Let me double-check this; let me re-check that.").en, 2);
  EXPECT_EQ(count_hesitations("いや、待って、5だ。").ja, 1);
  EXPECT_EQ(count_hesitations("等等，不对，是5。").zh, 1);
}

TEST(Hesitation, PartsOfOtherWordsAreNone) {
  EXPECT_EQ(count_hesitations("The waiter is waiting, await_all; a button, a rebuttal, Hmmm5, "
                              "nothing but factually true.")
                .total(),
            0);
  EXPECT_EQ(
      count_hesitations("それでも何でも分かりやすい。もしかして、いつでもよい。早いや。").total(),
      0);
  EXPECT_EQ(count_hesitations("足し算だけではなく引き算も。").total(), 0);
  EXPECT_EQ(count_hesitations("苹果、梨等等。这只不过是一个不对称的图形。不但是我。").total(), 0);
}

TEST(Hesitation, AClauseStartsAfterPunctuationOfAnyWidthAndAfterALineBreak) {
  EXPECT_EQ(count_hesitations("5\nでも「いや」と言う。　しかし").ja, 3);
  EXPECT_EQ(count_hesitations("(不过)").zh, 1);
}

TEST(Hesitation, TheRateIsPerThousandTokensAndNeedsTokens) {
  EXPECT_DOUBLE_EQ(*hesitations_per_1k({1, 2, 3}, 400), 15.0);
  EXPECT_FALSE(hesitations_per_1k({}, 0));
}

}  // namespace
}  // namespace assay::harness
