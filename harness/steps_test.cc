// Frames of steps come back as they were; a torn one is dropped, a broken one named.
#include "harness/steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::harness {
namespace {

const std::vector<StepFigures> kSteps = {
    {-0.5F, 0.25F, 0.125F, {{{7, -0.5F}, {3050, -1.25F}, {0, -3}, {12, -4}}}},
    {-2, 0, 1, {{{1, -0.125F}}}},
    {0, 1e-9F, 0.5F}};

TEST(Steps, ComeBackBitForBitAndTheLastOfAKeyCounts) {
  const std::string bytes = encode_steps("s/a/1", kSteps) + encode_steps("s/a/2", {}) +
                            encode_steps("s/a/2", std::span(kSteps).first(1));
  const auto back = decode_steps(bytes, "steps.bin");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->n_bytes, bytes.size());
  ASSERT_EQ(back->by_key.size(), 2U);
  EXPECT_EQ(back->by_key.at("s/a/1"), kSteps);
  EXPECT_EQ(back->by_key.at("s/a/2").size(), 1U);
}

// Written by hand from docs/formats/run-record.md: key "k", one step, and the zlib stream of 12
// bytes.
TEST(Steps, FramesFromBeforeTheMostLikelyTokensWereKeptAreRead) {
  std::string bytes("STP1\x01\0\0\0\x01\0\0\0\x17\0\0\0k", 17);
  bytes += std::string("\x78\x01\x01\x0c\x00\xf3\xff", 7);  // zlib, one stored block of 12 bytes
  bytes +=
      std::string("\x00\x00\x00\xbf\x00\x00\x80\x3e\x00\x00\x00\x3e", 12);  // −0.5, 0.25, 0.125
  bytes += std::string("\x0b\x37\x01\xbc", 4);
  const std::vector<StepFigures> expected = {{-0.5F, 0.25F, 0.125F}};
  const auto back = decode_steps(bytes, "steps.bin");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->by_key.at("k"), expected);
}

TEST(Steps, ATornFrameIsDroppedAtEveryByte) {
  const std::string first = encode_steps("k", kSteps), second = encode_steps("l", kSteps);
  for (std::size_t n = 0; n < second.size(); ++n) {
    const auto back = decode_steps(first + second.substr(0, n), "steps.bin");
    ASSERT_TRUE(back) << n << ": " << back.error().message;
    EXPECT_EQ(back->n_bytes, first.size()) << n;
  }
}

TEST(Steps, ABrokenFrameIsNamedWithItsPlace) {
  std::string bytes = encode_steps("k", kSteps);
  bytes += encode_steps("l", kSteps);
  std::string other = bytes;
  other[encode_steps("k", kSteps).size()] = 'X';
  const auto wrong = decode_steps(other, "steps.bin");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message,
              testing::HasSubstr(fmt::format("byte {}", encode_steps("k", kSteps).size())));
  bytes[bytes.size() - 3] ^= 0x55;
  const auto broken = decode_steps(bytes, "steps.bin");
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message, testing::HasSubstr("does not unpack to 3 steps"));
}

}  // namespace
}  // namespace assay::harness
