#include "base/shortened.h"

#include <gtest/gtest.h>

#include <vector>

namespace assay {
namespace {

TEST(Shortened, AShortListIsWhole) {
  const std::vector<std::string> list = {"a", "b", "c"};
  EXPECT_EQ(shortened({}), "");
  EXPECT_EQ(shortened(list), "a, b, c");
  EXPECT_EQ(shortened(list, "; ", 3), "a; b; c");
}

TEST(Shortened, OfALongOneTheRestIsCounted) {
  const std::vector<std::string> list(40, "x");
  EXPECT_EQ(shortened(list), "x, x, x, x, x, x and 34 more");
  EXPECT_EQ(shortened(list, "; ", 2), "x; x and 38 more");
}

}  // namespace
}  // namespace assay
