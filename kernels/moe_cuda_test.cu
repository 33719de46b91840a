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
#include "kernels/moe_testing.cuh"

namespace assay::kernels {
namespace {

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

// Every gate is above 100, whose silu is itself in float, and every sum an integer below 2^24.
TEST_F(Cuda, ExpertsInUnitsAreExactOnIntegers) {
  Random random(24);
  const Books books = codebooks(random, true);
  for (const auto& [tier, group] :
       {std::pair{0, 64}, {1, 64}, {2, 64}, {3, 64}, {0, 128}, {1, 128}, {2, 128}, {3, 128}}) {
    Layer l = random_layer(320, 96, 3, 2, 2, random);
    for (float& v : l.x) v = static_cast<float>(1 + random.below(2));
    for (auto* v : {&l.weight, &l.shared, &l.residual})
      for (float& f : *v) f = static_cast<float>(1 + random.below(2));
    for (int e = 0; e < 3; ++e) add_expert(l, books, {tier, tier, tier}, group, random);
    for (HostMatrix& m : l.host) {
      m.scales = bytes_of(std::vector<std::uint16_t>(m.scales.size() / 2, to_half(1.0f)));
      m.vq.scales = m.scales.data();
    }
    const std::vector<float> out = run_moe(l);
    for (int t = 0; t < l.n_tokens(); ++t)
      for (int r = 0; r < l.hidden; ++r)
        ASSERT_EQ(static_cast<double>(out[at(t, l.hidden, r)]), l.expected(t, r).value)
            << tier << ": " << t << ", " << r;
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

TEST_F(Cuda, ANaNOrAnInfinityShowsInItsTokenAlone) {
  Random random(44);
  const Books books = codebooks(random);
  Layer l = random_layer(1088, 96, 3, 2, 3, random);
  for (int e = 0; e < 3; ++e) add_expert(l, books, {3, 3, 1}, 128, random);
  expect_nan_in_its_token_alone(l, {});
}

}  // namespace
}  // namespace assay::kernels
