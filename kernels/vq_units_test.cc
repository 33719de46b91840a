// How a layer's experts are laid out for a GPU: plans by shapes, codebooks and shared memory, the
// fields of a unit, and how few codes that are read together share a bank. That units mean what
// their matrix does is bf16_weights_test's.
#include "kernels/vq_units.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "kernels/vq_pack.h"
#include "kernels/vq_testing.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kH200 = 227 * 1024, kRtxPro6000 = 99 * 1024;
const float kBooks[5] = {};  // whose addresses tell codebooks apart

VqMatrix matrix(int tier, int rows, int cols, int group = 128) {
  return {.codebook = kBooks + tier,
          .n_rows = rows,
          .n_cols = cols,
          .dim = tier < 2 ? 8 : 4,
          .n_codes = tier % 2 == 0 ? 256 : 4096,
          .index_bits = tier % 2 == 0 ? 8 : 12,
          .group = group};
}
// Of 1, 1.5, 2 and 3 bits: tiers 0 to 3.
std::vector<VqMatrix> experts(const std::vector<int>& tiers, int hidden = 6144, int width = 2048,
                              int group = 128) {
  std::vector<VqMatrix> out;
  for (std::size_t i = 0; i < tiers.size(); ++i)
    out.push_back(i % 3 < 2 ? matrix(tiers[i], width, hidden, group)
                            : matrix(tiers[i], hidden, width, group));
  return out;
}

void expect_fits(const UnitLaunch& l, std::size_t shared_bytes, int least_sums) {
  EXPECT_GE(l.stages, 2);
  EXPECT_GE(l.lines, 1);
  EXPECT_LE(l.parts * l.lines, 16);
  EXPECT_GE(l.sum_bytes, static_cast<std::size_t>(least_sums));
  EXPECT_LT(
      l.table_bytes + static_cast<std::size_t>(l.stages * l.lines * l.job_bytes) + l.sum_bytes,
      shared_bytes);
}

TEST(VqUnits, UniformLayersOfTwelveBitsGetCopiesAndLongerFields) {
  const auto bits_of = [](int tier) {
    const auto layer = experts({tier, tier, tier});
    const UnitPlan plan = plan_units(layer, 8, kH200);
    EXPECT_TRUE(plan.is_in_units()) << tier;
    for (const UnitLaunch* l : {&plan.gate_up, &plan.down}) expect_fits(*l, kH200, 1024);
    EXPECT_EQ(plan.gate_up.parts, 12);
    EXPECT_EQ(plan.down.lines, 4);
    EXPECT_EQ(plan.gate_up.form(layer[0]).bits, plan.down.form(layer[2]).bits);
    return plan.gate_up.form(layer[0]).bits;
  };
  EXPECT_EQ(bits_of(0), 8);
  EXPECT_EQ(bits_of(1), 13);
  EXPECT_EQ(bits_of(2), 8);
  EXPECT_EQ(bits_of(3), 14);
}

// The stages that the measured kernel had, and room for the sums of a round of GLM-5.2's experts.
TEST(VqUnits, ThreeBitsHaveThreeStagesForGateAndUp) {
  const UnitPlan plan = plan_units(experts({3, 3, 3}), 8, kH200);
  EXPECT_EQ(plan.gate_up.stages, 3);
  EXPECT_GE(plan.gate_up.sum_bytes, std::size_t{16 * 2 * 12 * 8 * 4});
  EXPECT_EQ(plan.down.stages, 2);
}

TEST(VqUnits, MixturesTakeNoMoreMemoryThanTheirFiles) {
  const auto layer = experts({0, 2, 3, 3, 0, 0, 2, 1, 3});
  const UnitPlan plan = plan_units(layer, 8, kH200);
  ASSERT_TRUE(plan.is_in_units());
  for (std::size_t i = 0; i < layer.size(); ++i) {
    const VqMatrix& w = layer[i];
    const UnitForm f = plan.of(static_cast<int>(i % 3)).form(w);
    EXPECT_EQ(f.bits, w.index_bits);
    EXPECT_EQ(unit_bytes(w, f), static_cast<std::size_t>(w.n_rows) *
                                    static_cast<std::size_t>(4 * w.row_words() + 2 * w.n_groups()));
  }
  EXPECT_EQ(plan.gate_up.most_copies(), 1);
}

TEST(VqUnits, TablesDoNotOverlap) {
  const UnitPlan plan = plan_units(experts({0, 1, 0, 2, 3, 1, 0, 0, 3}), 8, kH200);
  ASSERT_TRUE(plan.is_in_units());
  const UnitLaunch& l = plan.gate_up;
  EXPECT_EQ(l.table_at(UnitLaunch::k8x256), 0u);
  EXPECT_EQ(l.table_at(UnitLaunch::k4x256), 128u);  // of the same 256 bytes
  EXPECT_EQ(l.table_at(UnitLaunch::k8x4096), 65536u);
  EXPECT_EQ(l.table_at(UnitLaunch::k4x4096), 131072u);
  EXPECT_EQ(l.table_bytes, 163840u);
}

TEST(VqUnits, ASmallerDeviceHasFewerCopiesOrGoesByRows) {
  for (const int tier : {0, 1, 2, 3}) {
    const auto layer = experts({tier, tier, tier});
    const UnitPlan plan = plan_units(layer, 8, kRtxPro6000);
    ASSERT_TRUE(plan.is_in_units()) << tier;
    for (const UnitLaunch* l : {&plan.gate_up, &plan.down}) expect_fits(*l, kRtxPro6000, 1024);
    EXPECT_EQ(plan.gate_up.form(layer[0]).bits, layer[0].index_bits);
  }
  const UnitPlan mixture = plan_units(experts({0, 2, 3, 3, 0, 0, 2, 0, 2}), 8, kRtxPro6000);
  ASSERT_TRUE(mixture.is_in_units());
  EXPECT_EQ(mixture.gate_up.stride, 32);
  for (const UnitLaunch* l : {&mixture.gate_up, &mixture.down}) expect_fits(*l, kRtxPro6000, 1024);
  EXPECT_FALSE(plan_units(experts({0, 1, 2, 2, 3, 0}), 8, kRtxPro6000).is_in_units());
}

TEST(VqUnits, WhatTheKernelDoesNotTakeGoesByRows) {
  const auto grouped = [](const std::vector<VqMatrix>& layer) {
    return plan_units(layer, 2, kH200).is_in_units();
  };
  EXPECT_TRUE(grouped(experts({0, 0, 0}, 320, 96, 64)));
  EXPECT_EQ(plan_units(experts({0, 0, 0}, 320, 96, 64), 2, kH200).gate_up.scales, 8);
  EXPECT_TRUE(grouped(experts({0, 0, 0}, 320, 96, 400)));  // a row is narrower than a group
  EXPECT_FALSE(grouped(experts({0, 0, 0}, 320, 96, 32)));
  EXPECT_FALSE(grouped(experts({0, 0, 0}, 8200, 96)));
  auto layer = experts({0, 0, 0});
  layer[2].codebook = kBooks + 4;  // down may have a codebook of its own
  EXPECT_TRUE(grouped(layer));
  layer[1].codebook = kBooks + 4;  // gate and up may not
  EXPECT_FALSE(grouped(layer));
  layer = experts({0, 0, 0});
  layer[0].n_books = 2;
  EXPECT_FALSE(grouped(layer));
  layer = experts({0, 0, 0});
  layer[0].dim = 16;
  EXPECT_FALSE(grouped(layer));
}

TEST(VqUnits, CopiesArePermutations) {
  for (const int dim : {4, 8})
    for (int copy = 0; copy < (dim == 4 ? 4 : 3); ++copy) {
      std::vector<bool> seen(4096);
      for (int e = 0; e < 4096; ++e) {
        const int place = table_place(dim, copy, e);
        ASSERT_EQ(table_place(dim, copy, place), e);
        seen[static_cast<std::size_t>(place)] = true;
      }
      EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 4096);
    }
}

// How often memory is read for random codes, of what they are read from: what the kernel's speed
// was measured with (docs/design/cuda-kernels.md).
double average_reads(int dim, int n_copies) {
  std::mt19937 rng(7);
  const int n = dim == 8 ? 8 : 16;
  int total = 0;
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    std::array<std::uint16_t, 16> codes{};
    std::array<std::uint8_t, 16> copy{};
    for (auto& c : codes) c = static_cast<std::uint16_t>(rng() % 4096);
    const int reads = choose_copies(dim, n_copies, codes.data(), copy.data());
    std::array<int, 16> wanted{};
    for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k) {
      EXPECT_LT(copy[k], n_copies);
      ++wanted[static_cast<std::size_t>(table_place(dim, copy[k], codes[k]) % n)];
    }
    EXPECT_EQ(*std::max_element(wanted.begin(), wanted.end()), reads);
    total += reads;
  }
  return static_cast<double>(total) / kDraws;
}

TEST(VqUnits, ChosenCopiesKeepCodesOffEachOthersBanks) {
  EXPECT_LT(average_reads(4, 4), 1.4);
  EXPECT_LT(average_reads(4, 2), 2.1);
  EXPECT_LT(average_reads(8, 2), 2.1);
  EXPECT_LT(average_reads(8, 3), 1.5);
  EXPECT_GT(average_reads(4, 1), 2.8);
}

// Memory that was used before: padding is zero all the same.
TEST(VqUnits, WhereTheyAreMadeChangesNothing) {
  ThreadPool one(1);
  const RandomVq large({301, 520, 4, 4096, 12, 1, 64}, 3, false),
      small({301, 520, 4, 256, 8, 1, 128}, 3, false);
  for (const auto& [m, form] : {std::pair{large.view(), UnitForm{4, 14, 8}},
                                {small.view(), UnitForm{.dim = 4, .bits = 8, .sliced = true}}}) {
    std::vector<std::byte> used(unit_bytes(m, form), std::byte{0xFF});
    pack_units_into(m, form, one, used);
    EXPECT_EQ(used, pack_units(m, form, one));
  }
}

// The result is a function of the matrix, not of who packed which tile.
TEST(VqUnits, ThreadsChangeNothing) {
  const RandomVq m({300, 520, 4, 4096, 12, 1, 64}, 3, false);
  ThreadPool one(1), four(4);
  const UnitForm f = {4, 14, 8};
  EXPECT_EQ(pack_units(m.view(), f, one), pack_units(m.view(), f, four));
  EXPECT_EQ(pack_units(m.view(), f, one).size(), std::size_t{38 * 2} * (14 * 128 + 128));
}

}  // namespace
}  // namespace assay::kernels
