// The stored formats, byte for byte: every array below was packed by hand from the specification.
#include "kernels/quantised.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/dtype.h"

namespace assay::kernels {
namespace {

template <std::size_t N>
std::vector<std::byte> bytes(const std::array<int, N>& values) {
  std::vector<std::byte> out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

// binary16: 1.0 is 0x3C00, 0.5 0x3800, 2.0 0x4000, -3.0 0xC200.

TEST(VqMatrix, TwelveBitIndicesStraddleWords) {
  // 0x123, 0x456, 0x789, 0xABC, 0xDEF, least significant first: 0x23 0x61 0x45 | 0x89 0xC7 0xAB |
  // 0xEF 0x0D, 60 bits in two words. The third index lies in both.
  const auto codes = bytes<8>({0x23, 0x61, 0x45, 0x89, 0xC7, 0xAB, 0xEF, 0x0D});
  VqMatrix w;
  w.codes = codes.data();
  w.n_rows = 1, w.n_cols = 20, w.dim = 4, w.n_codes = 4096, w.index_bits = 12, w.group = 20;
  EXPECT_EQ(w.row_words(), 2);
  constexpr int kExpected[] = {0x123, 0x456, 0x789, 0xABC, 0xDEF};
  for (int j = 0; j < 5; ++j) EXPECT_EQ(vq_index(w, 0, j), kExpected[j]) << j;
}

TEST(VqMatrix, RowsBeginAtWholeWordsAndNeedNotBeAligned) {
  // Rows of eleven 3-bit indices, 33 bits: two words each. First row 0 1 2 3 4 5 6 7 0 1 and 6,
  // whose top bit opens the second word; second row all ones.
  const auto codes = bytes<17>({0xEE,                                     // not ours
                                0x88, 0xC6, 0xFA, 0x88, 0x01, 0, 0, 0,    //
                                0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0, 0, 0});  //
  VqMatrix w;
  w.codes = codes.data() + 1;
  w.n_rows = 2, w.n_cols = 11, w.dim = 1, w.n_codes = 8, w.index_bits = 3, w.group = 11;
  EXPECT_EQ(w.row_words(), 2);
  constexpr int kExpected[] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 6};
  for (int j = 0; j < 11; ++j) EXPECT_EQ(vq_index(w, 0, j), kExpected[j]) << j;
  for (int j = 0; j < 11; ++j) EXPECT_EQ(vq_index(w, 1, j), 7) << j;
}

TEST(VqMatrix, BooksOfOneSubvectorFollowEachOther) {
  // 8 bits, two books: (5, 9), (1, 200).
  const auto codes = bytes<4>({5, 9, 1, 200});
  VqMatrix w;
  w.codes = codes.data();
  w.n_rows = 1, w.n_cols = 16, w.dim = 8, w.n_codes = 256, w.index_bits = 8, w.n_books = 2;
  w.group = 16;
  EXPECT_EQ(vq_index(w, 0, 0, 0), 5);
  EXPECT_EQ(vq_index(w, 0, 0, 1), 9);
  EXPECT_EQ(vq_index(w, 0, 1, 0), 1);
  EXPECT_EQ(vq_index(w, 0, 1, 1), 200);
}

TEST(VqMatrix, SixteenBitIndicesAreHalfWords) {
  const auto codes = bytes<4>({0x34, 0x12, 0xFF, 0xFF});
  VqMatrix w;
  w.codes = codes.data();
  w.n_rows = 1, w.n_cols = 16, w.dim = 8, w.n_codes = 65536, w.index_bits = 16, w.group = 16;
  EXPECT_EQ(vq_index(w, 0, 0), 0x1234);
  EXPECT_EQ(vq_index(w, 0, 1), 0xFFFF);
}

struct TinyVq {
  TinyVq() {
    w.codes = codes.data();
    w.scales = scales.data();
    w.codebook = codebook.data();
    w.n_rows = 2, w.n_cols = 6, w.dim = 2, w.n_codes = 4, w.index_bits = 2, w.group = 4;
  }
  // Row 0: 3 0 1 -> 0b01'00'11. Row 1: 2 2 0 -> 0b00'10'10.
  std::vector<std::byte> codes = bytes<8>({0x13, 0, 0, 0, 0x0A, 0, 0, 0});
  // Two groups, the second of two columns: 1 and 0.5; 2 and -3.
  std::vector<std::byte> scales = bytes<8>({0x00, 0x3C, 0x00, 0x38, 0x00, 0x40, 0x00, 0xC2});
  std::vector<float> codebook = {1, 2, 3, 4, 5, 6, 7, 8};
  VqMatrix w;
};

TEST(VqMatrix, AWeightIsItsCodewordsValueTimesItsGroupsScale) {
  const TinyVq tiny;
  constexpr float kExpected[2][6] = {{7, 8, 1, 2, 1.5f, 2}, {10, 12, 10, 12, -3, -6}};
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 6; ++c) EXPECT_EQ(weight_at(tiny.w, r, c), kExpected[r][c]) << r << c;
  EXPECT_EQ(vq_scale(tiny.w, 1, 1), -3);
}

TEST(VqMatrix, AProductIsTheDefinition) {
  const TinyVq tiny;
  const float x[] = {1, 0, 0, 0, 0, 0, -9, 1, 1, 1, 1, 1, 1};  // two tokens, 7 apart
  float y[] = {100, 100, 100, 100, 100};
  project_reference(tiny.w, x, 2, 7, y, 3, true);
  EXPECT_EQ(y[0], 107);
  EXPECT_EQ(y[1], 110);
  EXPECT_EQ(y[2], 100);  // between the tokens
  EXPECT_EQ(y[3], 121.5f);
  EXPECT_EQ(y[4], 135);
  project_reference(tiny.w, x, 1, 7, y, 3, false);
  EXPECT_EQ(y[0], 7);
}

TEST(VqMatrix, FindsTheFirstIndexThatIsNoCodeword) {
  TinyVq tiny;
  EXPECT_EQ(first_bad_index(tiny.w, 0), -1);
  tiny.w.n_codes = 3;
  EXPECT_EQ(first_bad_index(tiny.w, 0), 0);
  EXPECT_EQ(first_bad_index(tiny.w, 1), -1);
  tiny.codes[0] = std::byte{0x31};  // 1 0 3
  EXPECT_EQ(first_bad_index(tiny.w, 0), 2);
}

TEST(ScaledMatrix, Gptq4PacksColumnsOfValuesAndRowsOfZeros) {
  // Nine columns by two rows: qweight (2, 2). Row 0 holds q = 0 … 7 then 15, row 1 fifteen minus
  // that; word (0, 0) is 0x76543210, word (0, 1) 0x89ABCDEF.
  const auto values = bytes<16>({0x10, 0x32, 0x54, 0x76, 0xEF, 0xCD, 0xAB, 0x89,  //
                                 0x0F, 0, 0, 0, 0x00, 0, 0, 0});
  // Groups of eight columns: z = (7, 15) then (0, 3).
  const auto zeros = bytes<8>({0xF7, 0, 0, 0, 0x30, 0, 0, 0});
  const auto scales = bytes<8>({0x00, 0x3C, 0x00, 0x38, 0x00, 0x40, 0x00, 0xC2});
  ScaledMatrix w{.kind = ScaledMatrix::Kind::kGptq4,
                 .values = values.data(),
                 .scales = scales.data(),
                 .zeros = zeros.data(),
                 .n_rows = 2,
                 .n_cols = 9,
                 .group = 8};
  for (int c = 0; c < 8; ++c) {
    EXPECT_EQ(weight_at(w, 0, c), static_cast<float>(c - 8)) << c;
    EXPECT_EQ(weight_at(w, 1, c), 0.5f * static_cast<float>(15 - c - 16)) << c;
  }
  EXPECT_EQ(weight_at(w, 0, 8), 2.0f * (15 - 1));
  EXPECT_EQ(weight_at(w, 1, 8), -3.0f * (0 - 4));
}

TEST(ScaledMatrix, Gptq8IsTheSameWithFourToAWord) {
  // Five columns, one row: 0 1 128 255, 7. Zero 127 (v1: one is added).
  const auto values = bytes<8>({0, 1, 128, 255, 7, 0, 0, 0});
  const auto zeros = bytes<4>({127, 0, 0, 0});
  const auto scales = bytes<2>({0x00, 0x38});
  ScaledMatrix w{.kind = ScaledMatrix::Kind::kGptq8,
                 .values = values.data(),
                 .scales = scales.data(),
                 .zeros = zeros.data(),
                 .n_rows = 1,
                 .n_cols = 5,
                 .group = 128};
  constexpr float kExpected[] = {-64, -63.5f, 0, 63.5f, -60.5f};
  for (int c = 0; c < 5; ++c) EXPECT_EQ(weight_at(w, 0, c), kExpected[c]) << c;
  const float x[] = {1, 0, 0, 2, 0};
  float y = 5;
  project_reference(w, x, 1, 5, &y, 1, false);
  EXPECT_EQ(y, 63);
}

TEST(ScaledMatrix, E4m3HasSubnormalsSignedZeroAndNoInfinity) {
  EXPECT_EQ(e4m3_to_f32(0x38), 1.0f);
  EXPECT_EQ(e4m3_to_f32(0x7E), 448.0f);  // the largest
  EXPECT_EQ(e4m3_to_f32(0xFE), -448.0f);
  EXPECT_EQ(e4m3_to_f32(0x78), 256.0f);  // where others keep infinity
  EXPECT_EQ(e4m3_to_f32(0x08), 0x1p-6f);
  EXPECT_EQ(e4m3_to_f32(0x07), 7 * 0x1p-9f);  // the largest subnormal
  EXPECT_EQ(e4m3_to_f32(0x01), 0x1p-9f);
  EXPECT_EQ(e4m3_to_f32(0x81), -0x1p-9f);
  EXPECT_EQ(e4m3_to_f32(0x00), 0.0f);
  EXPECT_TRUE(e4m3_to_f32(0x80) == 0.0f && std::signbit(e4m3_to_f32(0x80)));
  EXPECT_TRUE(std::isnan(e4m3_to_f32(0x7F)) && std::isnan(e4m3_to_f32(0xFF)));
}

TEST(ScaledMatrix, Fp8SharesAScaleInSquareBlocks) {
  // 3 by 3, blocks of 2: scales (2, 2) float32 1 2 / 4 8. All values 1.0 but one 448.
  const auto values = bytes<9>({0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x7E});
  const auto scales = bytes<16>({0, 0, 0x80, 0x3F, 0, 0, 0x00, 0x40,  //
                                 0, 0, 0x80, 0x40, 0, 0, 0x00, 0x41});
  ScaledMatrix w{.kind = ScaledMatrix::Kind::kFp8E4m3,
                 .values = values.data(),
                 .scales = scales.data(),
                 .n_rows = 3,
                 .n_cols = 3,
                 .group = 2};
  constexpr float kExpected[3][3] = {{1, 1, 2}, {1, 1, 2}, {4, 4, 3584}};
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) EXPECT_EQ(weight_at(w, r, c), kExpected[r][c]) << r << c;
}

}  // namespace
}  // namespace assay::kernels
