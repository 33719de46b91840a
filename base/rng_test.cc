#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace assay {
namespace {

using Block = std::array<std::uint32_t, 4>;

// Known answers of the authors: Random123, tests/kat_vectors, "philox4x32 10".
TEST(Philox, GivesTheAuthorsKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformAt, IsTheTopOfThePhiloxBlock) {
  // 53 bits of 6627e8d5 e169c58d, by hand: the published layout of samples depends on it.
  EXPECT_EQ(uniform_at(0, 0, 0), static_cast<double>(0x6627e8d5e169c58dULL >> 11) * 0x1p-53);
}

TEST(UniformAt, EveryBitOfSeedStreamAndPositionCounts) {
  std::set<double> seen{uniform_at(0, 0, 0)};
  for (int bit = 0; bit < 64; ++bit) {
    seen.insert(uniform_at(1ULL << bit, 0, 0));
    seen.insert(uniform_at(0, 1ULL << bit, 0));
    seen.insert(uniform_at(0, 0, 1ULL << bit));
  }
  EXPECT_EQ(seen.size(), 1u + 3 * 64);
}

TEST(UniformAt, IsUniformOnTheUnitInterval) {
  // Chi-square over 100 equal bins: mean 99, standard deviation sqrt(198) = 14.1; 99 ± 5
  // deviations.
  constexpr int kBins = 100, kDraws = 200'000;
  std::array<int, kBins> count{};
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform_at(7, 3, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++count[static_cast<int>(u * kBins)];
  }
  constexpr double kExpected = 1.0 * kDraws / kBins;
  double chi_square = 0;
  for (const int c : count) chi_square += (c - kExpected) * (c - kExpected) / kExpected;
  EXPECT_GT(chi_square, 99 - 5 * 14.1);
  EXPECT_LT(chi_square, 99 + 5 * 14.1);
}

}  // namespace
}  // namespace assay
