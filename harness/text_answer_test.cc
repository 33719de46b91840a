// Short answers in words: found in any spelling, not inside other words, not where denied.
#include "harness/text_answer.h"

#include <gtest/gtest.h>

namespace assay::harness {
namespace {

std::string found(std::string_view text, std::string_view accepted) {
  const auto got = find_accepted(text, accepted);
  if (!got) return "none";
  EXPECT_LT(got->begin, got->end);
  EXPECT_LE(got->end, text.size());
  return std::string(text.substr(got->begin, got->end - got->begin));
}

TEST(AcceptedAnswers, AreSeparatedByBarsAndTrimmed) {
  EXPECT_EQ(accepted_answers(" 北岳 | Kita-dake||Mount Kita"),
            (std::vector<std::string>{"北岳", "Kita-dake", "Mount Kita"}));
  EXPECT_TRUE(accepted_answers(" | ").empty());
}

TEST(FindAccepted, FindsTheNameInASentenceOfAnyLanguage) {
  EXPECT_EQ(found("日本で二番目に高い山は北岳です。", "北岳|Kita-dake"), "北岳");
  EXPECT_EQ(found("It is Mount KITA, in Japan.", "北岳|Mount Kita"), "Mount KITA");
  EXPECT_EQ(found("元素記号はＡｕです。", "Au"), "Ａｕ");
  EXPECT_EQ(found("答案是**北京**。", "北京"), "北京");
  EXPECT_EQ(found("「大きい」の反対語は「小さい」です。", "小さい"), "小さい");
  EXPECT_EQ(found("ロンドンです。", "ロンドン"), "ロンドン");
  EXPECT_EQ(find_accepted("Au", "Au")->rule, "accepted");
}

TEST(FindAccepted, ANameInsideAnotherWordIsNotThere) {
  EXPECT_EQ(found("首都は東京都です。", "京都"), "none");
  EXPECT_EQ(found("August", "Au"), "none");
  EXPECT_EQ(found("It is 1050.", "105"), "none");
  EXPECT_EQ(found("It is 105.", "105"), "105");
}

TEST(FindAccepted, ADeniedNameIsNotTheAnswer) {
  EXPECT_EQ(found("富士山ではなく北岳です。", "富士山"), "none");
  EXPECT_EQ(found("富士山ではなく北岳です。", "北岳"), "北岳");
  EXPECT_EQ(found("It is not Mount Fuji but Kita-dake.", "Mount Fuji"), "none");
  EXPECT_EQ(found("It is Kita-dake, not Mount Fuji.", "Kita-dake"), "Kita-dake");
  EXPECT_EQ(found("不是上海，是北京。", "上海"), "none");
  EXPECT_EQ(found("不是上海，是北京。", "北京"), "北京");
}

TEST(FindAccepted, AnyBytesAreText) {
  EXPECT_EQ(found("\xff\xfe 北岳 \xe4", "北岳"), "北岳");
  EXPECT_EQ(found("", "北岳"), "none");
}

}  // namespace
}  // namespace assay::harness
