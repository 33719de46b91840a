#include "base/plural.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

TEST(Plural, OneIsOne) {
  EXPECT_EQ(counted(0, "token"), "0 tokens");
  EXPECT_EQ(counted(1, "token"), "1 token");
  EXPECT_EQ(counted(2L, "token"), "2 tokens");
  EXPECT_EQ(counted(1, "reply", "replies"), "1 reply");
  EXPECT_EQ(counted(3, "reply", "replies"), "3 replies");
}

}  // namespace
}  // namespace assay
