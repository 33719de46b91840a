#include "engine/quantize/binary16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace assay::engine {
namespace {

TEST(Binary16, EveryFiniteValueRoundsToItself) {
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    if ((half >> 10 & 31) == 31) continue;
    const auto bits = static_cast<std::uint16_t>(half);
    EXPECT_EQ(f32_to_f16(kernels::f16_to_f32(bits)), bits);
  }
}

TEST(Binary16, HalfWayGoesToEvenAndBeyondItToTheNeighbour) {
  for (std::uint32_t half = 0; half < 0x7BFF; ++half) {  // subnormals and the carry into them too
    const auto lo = static_cast<std::uint16_t>(half), hi = static_cast<std::uint16_t>(half + 1);
    const float middle = (kernels::f16_to_f32(lo) + kernels::f16_to_f32(hi)) / 2;  // exact
    EXPECT_EQ(f32_to_f16(middle), half % 2 == 0 ? lo : hi) << half;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), lo) << half;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), hi) << half;
    EXPECT_EQ(f32_to_f16(-middle), f32_to_f16(middle) | 0x8000) << half;
  }
}

TEST(Binary16, TooLargeBecomesTheLargestFiniteValue) {
  EXPECT_EQ(f32_to_f16(1e9f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xFBFF);
  EXPECT_TRUE(std::isnan(round_to_f16(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace assay::engine
