#include "base/figure.h"

#include <gtest/gtest.h>

#include <limits>

namespace assay {
namespace {

TEST(Figure, HasNoMoreDigitsThanSaySomething) {
  EXPECT_EQ(figure(30105.55547, 5, 6), "30105.6");
  EXPECT_EQ(figure(1.0012345, 5, 6), "1.00123");
  EXPECT_EQ(figure(0.99888765, 5, 6), "0.99889");
  EXPECT_EQ(figure(10, 5, 6), "10.0000");
  EXPECT_EQ(figure(1234567.8, 5, 6), "1234568");
  EXPECT_EQ(figure(-123.456, 2, 4), "-123.5");
  EXPECT_EQ(figure(1.5, 2, 4), "1.50");
  EXPECT_EQ(figure(0, 2, 4), "0.00");
  EXPECT_EQ(figure(3.14159e12, 2, 4), "3.142e+12");
  EXPECT_EQ(figure(std::numeric_limits<double>::infinity(), 2, 4), "inf");
}

}  // namespace
}  // namespace assay
