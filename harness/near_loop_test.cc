#include "harness/near_loop.h"

#include <gtest/gtest.h>

#include <vector>

namespace assay::harness {
namespace {

// A token is a letter, so that ids and text are two views of one thing.
std::string letters(std::span<const int> ids) {
  std::string text;
  for (const int id : ids) text += static_cast<char>(id);
  return text;
}
std::vector<int> tokens(std::string_view text) { return {text.begin(), text.end()}; }

const std::string kLead =
    "We are asked how many apples there are. Each of the eight baskets holds a hundred and "
    "twenty-seven, and nobody has eaten any on the way. ";

std::string counted(int copies) {
  std::string text;
  for (int i = 1; i <= copies; ++i)
    text += std::to_string(i) + ". Let me go back and look at the baskets once more. ";
  return text;
}

TEST(NearLoop, ACounterInEveryCopyIsFoundWithItsStart) {
  const auto loop = find_near_loop(tokens(kLead + counted(20)), letters);
  ASSERT_TRUE(loop);
  EXPECT_NEAR(loop->start, static_cast<int>(kLead.size()), 8);
  EXPECT_GT(loop->repeated_share, 0.7);
  EXPECT_EQ(loop->language, Language::kEnglish);
  EXPECT_FALSE(find_near_loop(tokens(kLead), letters));
}

TEST(NearLoop, ThreeCopiesAreADraftNotALoop) {
  EXPECT_FALSE(find_near_loop(tokens(kLead + kLead + kLead), letters));
  EXPECT_TRUE(find_near_loop(tokens(kLead + kLead + kLead + kLead + kLead), letters));
}

TEST(NearLoop, AReplyThatCameOutOfItIsNone) {
  std::string text = counted(20);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(find_near_loop(tokens(text), letters).has_value(), i == 0);
    text +=
        "So that was that: forty-one pears, six of which went to Jim, zero to us. Quite odd! By "
        "noon everybody knew; Vera had kept a journal, and it named names, dates, prices, even "
        "weather. What follows is copied from page five, lightly edited.";
  }
}

TEST(NearLoop, TooShortToTellIsNone) {
  EXPECT_FALSE(find_near_loop({}, letters));
  EXPECT_FALSE(find_near_loop(tokens("abc"), letters));
  EXPECT_FALSE(find_near_loop(tokens(counted(4)), letters));
}

TEST(NearLoop, CompressionNeedsNoMoreThanDeflateSees) {
  EXPECT_EQ(compression_ratio(""), 0);
  const std::string flat(100000, 'x');
  EXPECT_GT(compression_ratio(flat), 100);
  EXPECT_EQ(compression_ratio(flat), compression_ratio(flat.substr(0, 32768)));
}

}  // namespace
}  // namespace assay::harness
