#include "base/size_text.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

TEST(SizeText, NoSizeReadsAsNothing) {
  EXPECT_EQ(size_text(14.207e9), "14.21 GB");
  EXPECT_EQ(size_text(1e7), "0.01 GB");
  EXPECT_EQ(size_text(9.99e6), "9.99 MB");
  EXPECT_EQ(size_text(1e4), "0.01 MB");
  EXPECT_EQ(size_text(812), "812 bytes");
}

}  // namespace
}  // namespace assay
