// The routed experts on a GPU against the reference: row by row and in units, every form and
// mixture, exact on integers, within the bound that moe_cuda.h states, and the same bits whatever
// the batch, the device's memory and the number of copies. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/moe_layers_testing.cuh"

namespace assay::kernels {
namespace {

// What experts by the row take; columns in eights. whole: small whole numbers.
constexpr int kRowKinds = 8;
HostMatrix row_matrix(int kind, int rows, int cols, int group, bool whole, Random& random) {
  switch (kind) {
    case 0:
      return dense(WeightType::kBf16, rows, cols, whole, random);
    case 1:
      return dense(WeightType::kF16, rows, cols, whole, random);
    case 2:
      return dense(WeightType::kF32, rows, cols, whole, random);
    case 3:
      return vq(8, 256, rows, cols, group, whole, random);
    case 4:
      return vq(4, 3000, rows, cols, group, whole, random);
    case 5:
      return gptq(4, rows, cols, group, whole, random);
    case 6:
      return gptq(8, rows, cols, group, whole, random);
    default:
      HostMatrix m = fp8(rows, cols, group, random);
      if (!whole) return m;
      constexpr unsigned char kCodes[] = {0x00, 0x38, 0x40, 0x44, 0xB8, 0xC0, 0xC4};  // 0, ±1 … ±3
      for (std::byte& b : m.values) b = std::byte{kCodes[random.below(7)]};
      std::vector<float> scales(m.scales.size() / 4);
      for (float& s : scales) s = static_cast<float>(1 + random.below(2));
      m.scales = bytes_of(scales);
      m.scaled.scales = m.scales.data();
      return m;
  }
}
void add_row_expert(Layer& l, const int (&kind)[3], int group, bool whole, Random& random) {
  for (int p = 0; p < 3; ++p)
    l.host.push_back(row_matrix(kind[p] % kRowKinds, p < 2 ? l.width : l.hidden,
                                p < 2 ? l.hidden : l.width, group, whole, random));
}

TEST_F(Cuda, ExpertsOfDifferentKindsAddUpAsTheReferenceSays) {
  Random random(fresh_seed());
  Layer l = random_layer(64, 32, 4, 2, 3, random);
  for (int e = 0; e < 4; ++e) {
    l.host.push_back(e % 2 == 0 ? vq(8, 256, 32, 64, 64, false, random)
                                : dense(WeightType::kBf16, 32, 64, false, random));
    l.host.push_back(e % 2 == 0 ? vq(4, 256, 32, 64, 64, false, random)
                                : gptq(4, 32, 64, 32, false, random));
    l.host.push_back(dense(WeightType::kF32, 64, 32, false, random));
  }
  std::string plan;
  const std::vector<float> out = run_moe(l, {.rows = true}, &plan);
  EXPECT_EQ(plan, "rows");
  l.by_row = true;
  expect_moe(l, out, "rows");
}

// Would show a shape at which a kind of matrix leaves its fast way and goes wrong.
TEST_F(Cuda, DrawnExpertsByTheRowStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (int draw = 0; draw < 6; ++draw) {
    const int n_experts = 1 + random.below(6), top_k = 1 + random.below(n_experts);
    Layer l = random_layer(8 * (1 + random.below(100)), 8 * (1 + random.below(30)), n_experts,
                           top_k, 1 + random.below(5), random);
    std::string text = std::to_string(l.hidden) + " x " + std::to_string(l.width) + ", kinds";
    for (int e = 0; e < n_experts; ++e) {
      const int kind[] = {random.below(kRowKinds), random.below(kRowKinds),
                          random.below(kRowKinds)};
      add_row_expert(l, kind, 8 * (1 + random.below(16)), false, random);
      for (const int k : kind) text += " " + std::to_string(k);
    }
    l.by_row = true;
    expect_moe(l, run_moe(l, {.rows = true}), text);
  }
}

const char* const kTexts[] = {"vq units", "vq units, tables ×2", "vq units", "vq units, tables ×4",
                              "vq units", "vq units, tables ×4"};

// Copies and memory are other ways to the same bits: 135 and 99 KB have half as many, or one.
TEST_F(Cuda, ExpertsInUnitsOfEveryFormStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  for (int tier = 0; tier < kTiers; ++tier)
    for (const auto& [hidden, width, group] :
         {std::tuple{320, 96, 64}, {1088, 2080, 128}, {2176, 40, 256}, {64, 33 * 8, 400}}) {
      Layer l = random_layer(hidden, width, 4, 3, 3, random);
      for (int e = 0; e < 4; ++e) add_expert(l, books, {tier, tier, tier}, group, random);
      std::string plan;
      const std::vector<float> out = run_moe(l, {}, &plan);
      EXPECT_EQ(plan, kTexts[tier]);
      expect_moe(l, out, "tier " + std::to_string(tier) + ", " + std::to_string(hidden));
      EXPECT_EQ(run_moe(l, {.shared_bytes = 135 << 10}), out);
      EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10}), out);
      EXPECT_EQ(run_moe(l, {.short_rounds = true}), out);
    }
}

// In shorter rounds the same bits. Would show a last tile, part, scale or round of the wrong size.
TEST_F(Cuda, DrawnExpertsInUnitsStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  for (int draw = 0; draw < 6; ++draw) {
    const auto [l, text] = drawn_layer(books, false, 64, random);
    std::string plan;
    const std::vector<float> out = run_moe(l, {}, &plan);
    EXPECT_EQ(plan.substr(0, 8), "vq units");
    expect_moe(l, out, text);
    EXPECT_EQ(run_moe(l, {.short_rounds = true}), out) << text;
  }
}

// Tables of 32 bytes an entry, which a device of little memory has for three codebooks.
TEST_F(Cuda, ShortTablesHaveTheSameBits) {
  Random random(19);
  const Books books = codebooks(random);
  for (const int group : {64, 128}) {
    Layer l = random_layer(576, 96, 6, 4, 2, random);
    for (int e = 0; e < 6; ++e)
      add_expert(l, books, {e % 2 * 2, 3 - e % 2, e % 3 == 0 ? 0 : e % 3 + 1}, group, random);
    const How how = {.shared_bytes = 99 << 10};
    EXPECT_EQ(plan_of(l, how).gate_up.stride, 32);
    const std::vector<float> out = run_moe(l, how);
    expect_moe(l, out, "short tables");
    EXPECT_EQ(run_moe(l), out);
    EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10, .short_rounds = true}), out);
  }
}

// GLM-5.2's own widths: twelve warps to a tile, four experts at once.
TEST_F(Cuda, ExpertsOfTheLargestShapesStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  Layer l = random_layer(6144, 2048, 8, 8, 1, random);
  constexpr int kMixture[8][3] = {{0, 0, 0}, {0, 0, 2}, {0, 2, 0}, {3, 0, 3},
                                  {0, 3, 0}, {2, 3, 0}, {0, 0, 3}, {3, 2, 2}};
  for (const auto& tier : kMixture) add_expert(l, books, tier, 128, random);
  std::string plan;
  const std::vector<float> out = run_moe(l, {.shared_bytes = max_shared_bytes()}, &plan);
  EXPECT_EQ(plan, "vq units");
  expect_moe(l, out, "GLM-5.2, mixture");
  EXPECT_EQ(run_moe(l, {.shared_bytes = 99 << 10}), out);
  EXPECT_EQ(run_moe(l, {.shared_bytes = max_shared_bytes(), .short_rounds = true}), out);
}

TEST_F(Cuda, ExpertsMayMixTiersAndATokensBitsDoNotDependOnItsBatch) {
  Random random(14);
  const Books books = codebooks(random);
  // Of the last, down has five lines for eight experts: a group of them that is not full.
  for (const auto& [hidden, width, group, top_k] : sizes<std::tuple<int, int, int, int>>(
           {{320, 96, 64, 5}, {1032, 520, 128, 5}, {320, 1536, 128, 8}},
           {{320, 96, 64, 5}, {320, 1536, 128, 8}})) {
    Layer l = random_layer(hidden, width, 8, top_k, 9, random);
    for (int e = 0; e < 8; ++e)
      add_expert(l, books, {e % 4, (e + 1) % 4, (e + 2) % 4}, group, random);
    std::string plan;
    const std::vector<float> all = run_moe(l, {}, &plan);
    EXPECT_EQ(plan, "vq units");
    expect_moe(l, all, "mixed");
    EXPECT_EQ(run_moe(l, {.short_rounds = true}), all);
    for (const auto& [first, n] : sizes<std::pair<int, int>>(
             {{0, 1}, {3, 1}, {8, 1}, {0, 2}, {2, 5}, {1, 8}}, {{3, 1}, {2, 5}}))
      EXPECT_EQ(
          run_moe(part_of(l, first, n)),
          std::vector<float>(all.begin() + first * hidden, all.begin() + (first + n) * hidden))
          << first << ", " << n << " tokens";
  }
}

// More tokens than a device has multiprocessors: blocks share them out.
TEST_F(Cuda, ALongBatchsTokensHaveTheBitsTheyHaveAlone) {
  Random random(15);
  const Books books = codebooks(random);
  Layer l = random_layer(320, 96, 4, 3, 331, random);
  for (int e = 0; e < 4; ++e) add_expert(l, books, {e, e, 3 - e}, 64, random);
  const std::vector<float> all = run_moe(l);
  for (const int t : {0, 1, 132, 329, 330}) {
    const auto row = all.begin() + t * 320;
    EXPECT_EQ(run_moe(part_of(l, t, 1)), std::vector<float>(row, row + 320)) << t;
  }
}

// Of matrices of every kind, each as gate, up and down; whether groups of columns are powers of two
// or not. Would show a wrong scale, zero point or column of any kind.
TEST_F(Cuda, ExpertsByTheRowAreExactOnIntegers) {
  Random random(25);
  Layer l = random_layer(64, 24, 2 * kRowKinds, 2, kRowKinds, random);
  for (int e = 0; e < 2 * kRowKinds; ++e)
    add_row_expert(l, {e, e + 1, e + 3}, e < kRowKinds ? 32 : 24, true, random);
  for (int t = 0; t < kRowKinds; ++t)
    for (const int k : {0, 1}) l.expert[at(t, 2, k)] = t + k * kRowKinds;
  make_whole(l, random);
  EXPECT_EQ(run_moe(l, {.rows = true}), exact_moe(l));
}

// Scales of 64 columns and of 128, columns that fill no part, and less memory; by the row the same
// bits. Would show a code, copy, scale or half of x that is not the row's.
TEST_F(Cuda, ExpertsInUnitsAreExactOnIntegers) {
  Random random(24);
  const Books books = codebooks(random, true);
  for (int tier = 0; tier < kTiers; ++tier)
    for (const int group : {64, 128}) {
      if (under_racecheck() && (group == 64) == (tier % 2 == 0)) continue;
      const Layer l =
          whole_layer(books, Tiers(3, {tier, tier, tier}), 584, 96, group, 2, 2, random);
      const std::vector<float> expected = exact_moe(l);
      EXPECT_EQ(run_moe(l), expected) << tier << ", " << group;
      if (under_racecheck()) continue;
      for (const How& how :
           {How{.rows = true}, How{.shared_bytes = 99 << 10}, How{.short_rounds = true}})
        EXPECT_EQ(run_moe(l, how), expected) << tier << ", " << group;
    }
}

// Far beyond binary16 either way, all zero, and one value that outweighs its neighbours.
TEST_F(Cuda, InputsOfAnySizeStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  Layer l = random_layer(1088, 96, 3, 2, 4, random);
  for (int e = 0; e < 3; ++e) add_expert(l, books, {2, 0, 2}, 128, random);
  for (auto* v : {&l.shared, &l.residual}) std::fill(v->begin(), v->end(), 0.0f);
  for (int c = 0; c < l.hidden; ++c) {
    l.x[at(0, l.hidden, c)] *= 1e15f;
    l.x[at(1, l.hidden, c)] *= 1e-12f;
    l.x[at(2, l.hidden, c)] = 0;
  }
  l.x[at(3, l.hidden, 100)] = 1e9f;
  const std::vector<float> out = run_moe(l);
  expect_moe(l, out, "any size");
  for (int r = 0; r < l.hidden; ++r) EXPECT_EQ(out[at(2, l.hidden, r)], 0);
}

// Of every kind of table, alone and mixed.
TEST_F(Cuda, ANaNOrAnInfinityShowsInItsTokenAlone) {
  Random random(44);
  const Books books = codebooks(random);
  constexpr int kTiersOf[][3] = {{3, 3, 1}, {0, 0, 0}, {2, 2, 2}, {1, 2, 3}};
  for (const auto& tier : kTiersOf) {
    if (under_racecheck() && tier[0] == tier[2]) continue;
    Layer l = random_layer(1088, 96, 3, 2, 3, random);
    for (int e = 0; e < 3; ++e) add_expert(l, books, tier, 128, random);
    expect_nan_in_its_token_alone(l, {});
  }
}

// An infinite gate of either sign makes a NaN of some of h at least: of all that down makes.
TEST_F(Cuda, ByTheRowANaNOrAnInfinityShowsInItsTokenAlone) {
  Random random(45);
  Layer l = random_layer(1088, 96, kRowKinds, 5, 3, random);
  for (int e = 0; e < kRowKinds; ++e) add_row_expert(l, {e, e + 1, e + 3}, 32, false, random);
  expect_nan_in_its_token_alone(l, {.rows = true});
}

}  // namespace
}  // namespace assay::kernels
