// What tensor cores are fed with, without a GPU: every kind of weight, decoded by eights and one by
// one, is the reference's value rounded to bfloat16 once; and pieces of a tile lie apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "kernels/bf16_weights.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/mma_tile.cuh"

namespace assay::kernels {
namespace {

std::uint16_t rounded(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }

// Aligned as device memory is.
class HostMemory {
 public:
  const void* keep(const void* from, std::size_t n_bytes) {
    blocks_.emplace_back((n_bytes + 15) / 16);
    std::memcpy(blocks_.back().data(), from, n_bytes);
    n_kept_ += n_bytes;
    return blocks_.back().data();
  }
  std::size_t n_kept() const { return n_kept_; }

 private:
  struct alignas(16) Block {
    std::byte bytes[16];
  };
  std::vector<std::vector<Block>> blocks_;
  std::size_t n_kept_ = 0;
};

void expect_decoded(const HostMatrix& host, WeightForm form, const char* what,
                    const UnitForm& units = {}) {
  HostMemory memory;
  const DeviceMatrix m = host.laid_out(
      [&](const void* from, std::size_t n_bytes) { return memory.keep(from, n_bytes); }, units);
  EXPECT_EQ(form_of(m), form) << what;
  EXPECT_EQ(memory.n_kept(), host.device_size(units) + 6 * host.codebook.size()) << what;
  for (int row = 0; row < m.n_rows; ++row)
    for (int col = 0; col < m.n_cols; col += 8) {
      uint4 eight{};
      with_form(form_of(m), [&](auto f) {
        eight = decode_codes<f.value>(m, row, col, fetch_codes<f.value>(m, row, col));
      });
      std::uint16_t values[8];
      std::memcpy(values, &eight, sizeof values);
      for (int i = 0; i < 8; ++i) {
        const bool inside = col + i < m.n_cols;
        const auto expected = inside ? static_cast<float>(host.at(row, col + i)) : 0;
        ASSERT_EQ(values[i], rounded(expected)) << what << ": " << row << ", " << col + i;
        if (inside) ASSERT_EQ(weight_value(m, row, col + i), expected) << what;
      }
    }
}

TEST(Bf16Weights, EveryKindIsTheReferencesValueRoundedOnce) {
  Random random(fresh_seed());
  expect_decoded(dense(WeightType::kBf16, 9, 72, false, random), WeightForm::kBf16, "bf16");
  expect_decoded(dense(WeightType::kF16, 9, 72, false, random), WeightForm::kF16, "f16");
  expect_decoded(dense(WeightType::kF32, 9, 72, false, random), WeightForm::kF32, "f32");
  for (const int n_codes : {200, 256, 3000, 4096, 65536}) {
    expect_decoded(vq(8, n_codes, 9, 328, 64, false, random), WeightForm::kVq8, "vq of 8");
    expect_decoded(vq(4, n_codes, 9, 328, 24, false, random), WeightForm::kVq4, "vq of 4");
  }
  expect_decoded(gptq(4, 9, 328, 32, false, random), WeightForm::kGptq4, "gptq4");
  expect_decoded(gptq(8, 9, 328, 32, false, random), WeightForm::kGptq8, "gptq8");
  for (const int group : {32, 64, 128})
    for (const int n_rows : {1, 9, 16, 37}) {
      expect_decoded(gptq(4, n_rows, 3 * group, group, false, random), WeightForm::kGptq4,
                     "gptq4 in units");
      expect_decoded(gptq(8, n_rows, 3 * group, group, false, random), WeightForm::kGptq8,
                     "gptq8 in units");
    }
  expect_decoded(fp8(37, 72, 16, random), WeightForm::kFp8, "fp8");
}

// Every word of a unit has one place, and a lane's two rows and quarter of the columns lie in its
// pieces: what a warp reads at once is one stretch.
TEST(GptqUnits, WordsOfALaneLieInItsPieces) {
  for (const int bits : {4, 8})
    for (const int group : {32, 64, 128}) {
      const GptqUnits units{lane_shift_of(bits, 3 * group, group)};
      ASSERT_EQ(units.group_words(), group * bits / 32);
      const int lane_words = units.group_words() / 4, piece_words = std::min(lane_words, 4);
      std::set<int> places;
      for (int row = 0; row < kUnitRows; ++row)
        for (int i = 0; i < units.group_words(); ++i) {
          const int place = units.code(row, i), piece = i % lane_words / piece_words;
          EXPECT_TRUE(places.insert(place).second) << row << ", " << i;
          EXPECT_EQ(place / piece_words % 32, row % 8 * 4 + i / lane_words);
          EXPECT_EQ(place / piece_words / 32, piece * 2 + row / 8);
          EXPECT_EQ(place % piece_words, i % piece_words);
        }
      for (int row = 0; row < kUnitRows; ++row)
        EXPECT_TRUE(places.insert(units.scale(row)).second) << row;
      EXPECT_EQ(*places.rbegin() + 1, units.words());
      EXPECT_EQ(places.size(), static_cast<std::size_t>(units.words()));
    }
}

TEST(GptqUnits, OtherShapesLieInRows) {
  for (const int bits : {4, 8}) {
    EXPECT_LT(lane_shift_of(bits, 328, 32), 0);
    EXPECT_LT(lane_shift_of(bits, 48, 16), 0);
    EXPECT_LT(lane_shift_of(bits, 96, 96), 0);
    EXPECT_LT(lane_shift_of(bits, 512, 256), 0);
    EXPECT_GE(lane_shift_of(bits, 96, 32), 0);
  }
}

// Every form and number of copies, rows and columns that fill no unit, scales that repeat within
// it.
TEST(Bf16Weights, UnitsAreTheReferencesValuesToo) {
  Random random(fresh_seed());
  struct Case {
    int dim, n_codes;
    std::vector<int> bits;
  };
  for (const Case& c : {Case{8, 256, {8}},
                        {4, 200, {8}},
                        {8, 4096, {12, 13}},
                        {4, 4096, {12, 13, 14}},
                        {4, 3000, {14}}})
    for (const int bits : c.bits)
      for (const auto& [rows, cols, group, scales] : {std::tuple{9, 96, 128, 4},
                                                      {3, 96, 64, 8},
                                                      {8, 320, 64, 8},
                                                      {17, 328, 400, 4},
                                                      {10, 768, 256, 4},
                                                      {16, 6144, 128, 4},
                                                      {5, 1088, 192, 8}})
        expect_decoded(vq(c.dim, c.n_codes, rows, cols, group, false, random),
                       c.dim == 8 ? WeightForm::kUnits8 : WeightForm::kUnits4, "units",
                       {c.dim, bits, scales});
  expect_decoded(vq(4, 256, 5, 44, 64, false, random), WeightForm::kValues, "no eights", {4, 8, 8});
}

// Rows and columns that fill no unit, scales that repeat within it, several slices.
TEST(Bf16Weights, UnitsForSumsAreTheReferencesValuesToo) {
  Random random(fresh_seed());
  for (const auto& [dim, n_codes] : {std::pair{8, 256}, {8, 200}, {4, 256}, {4, 130}})
    for (const auto& [rows, cols, group] :
         {std::tuple{9, 96, 128}, {3, 520, 640}, {8, 1024, 128}, {17, 1032, 256}, {16, 6144, 128}})
      expect_decoded(vq(dim, n_codes, rows, cols, group, false, random),
                     dim == 8 ? WeightForm::kUnits8 : WeightForm::kUnits4, "units for sums",
                     {.dim = dim, .bits = 8, .sliced = true});
}

// The same, of codebooks of 4096: of eight values three copies.
TEST(Bf16Weights, UnitsThatLieBySlicesAreTheReferencesValuesToo) {
  Random random(fresh_seed());
  for (const auto& [dim, n_codes] : {std::pair{8, 4096}, {8, 3000}, {4, 4096}, {4, 3000}})
    for (const auto& [rows, cols, group] :
         {std::tuple{9, 96, 128}, {3, 520, 640}, {8, 1024, 128}, {17, 1032, 256}, {16, 6144, 128}})
      expect_decoded(vq(dim, n_codes, rows, cols, group, false, random),
                     dim == 8 ? WeightForm::kUnits8 : WeightForm::kUnits4, "units by slices",
                     {dim, 14, 4, true});
}

TEST(Bf16Weights, WhatHasNoEightsIsDecodedOneByOne) {
  Random random(2);
  for (const WeightType type : {WeightType::kBf16, WeightType::kF16, WeightType::kF32})
    expect_decoded(dense(type, 5, 37, false, random), WeightForm::kValues, "dense");
  expect_decoded(vq(4, 256, 5, 44, 12, false, random), WeightForm::kValues, "vq of 4");
  expect_decoded(vq(6, 300, 5, 48, 24, false, random), WeightForm::kValues, "vq of 6");
  expect_decoded(gptq(4, 8, 64, 4, false, random), WeightForm::kValues, "gptq4");
  expect_decoded(gptq(8, 8, 44, 44, false, random), WeightForm::kValues, "gptq8");
  expect_decoded(fp8(13, 26, 8, random), WeightForm::kValues, "fp8");
}

TEST(Bf16Weights, AMatrixOfSeveralCodebooksAddsThemUp) {
  Random random(3);
  HostMatrix m = vq(8, 256, 9, 128, 64, true, random);
  // The same stream read as two books, for half as many columns.
  m.codebook = random.floats(2 * 256 * 8, true);
  m.vq.codebook = m.codebook.data();
  m.vq.n_books = 2, m.vq.n_cols = 64;
  expect_decoded(m, WeightForm::kValues, "two books");
}

// Eight lanes read one piece of eight rows at once, 128 bytes in all: every bank once.
TEST(MmaTile, PiecesThatAreReadTogetherAreInDifferentBanks) {
  std::set<int> places;
  for (int row = 0; row < 16; ++row)
    for (int piece = 0; piece < kPieces; ++piece) places.insert(piece_offset(row, piece));
  EXPECT_EQ(places.size(), 16u * kPieces);
  EXPECT_EQ(*places.rbegin(), 16 * kTileRowBytes - 16);
  for (int first = 0; first < 16; first += 8)
    for (int piece = 0; piece < kPieces; ++piece) {
      std::set<int> banks;
      for (int row = first; row < first + 8; ++row) banks.insert(piece_offset(row, piece) % 128);
      EXPECT_EQ(banks.size(), 8u) << first << ", " << piece;
    }
}

}  // namespace
}  // namespace assay::kernels
