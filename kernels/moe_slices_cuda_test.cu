// Routed experts by slices on a GPU, kinds of codebooks mixed, against the reference: exact on
// integers, within the bound that moe_cuda.h states, and the same bits whatever the batch. Need a
// GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/moe_layers_testing.cuh"

namespace assay::kernels {
namespace {

class SlicesCuda : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    if (!IsSkipped() && max_shared_bytes() < kSlicesSharedBytes)
      GTEST_SKIP() << "a block has " << max_shared_bytes()
                   << " bytes of shared memory here, fewer than tables take: this test shows "
                      "nothing; run it on an H100 or H200";
  }
};

// One codebook of a kind.
const Tiers kAllKinds = {{0, 1, 2}, {3, 2, 0}, {1, 3, 3}, {2, 0, 1}, {3, 3, 1}, {0, 0, 0}},
            kShortBooks = {{4, 5, 5}, {2, 4, 4}, {5, 2, 2}, {4, 4, 5}, {5, 5, 4}};

Layer layer_of(const Books& books, const Tiers& tiers, int hidden, int width, int group, int top_k,
               int n_tokens, Random& random) {
  Layer l = random_layer(hidden, width, static_cast<int>(tiers.size()), top_k, n_tokens, random);
  for (const auto& t : tiers) add_expert(l, books, {t[0], t[1], t[2]}, group, random);
  l.part_columns = slice_columns(UnitLaunch::k8x256);
  return l;
}

// Rows that fill no tile, columns that fill no slice, less than one of them, and several; scales of
// 128 columns, of more, and of all; tokens that chose some kinds alone.
TEST_F(SlicesCuda, MixedExpertsStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  for (const auto& [hidden, width, group] :
       {std::tuple{320, 96, 128}, {1032, 520, 128}, {2184, 1064, 256}, {1160, 136, 4096}})
    for (const Tiers* tiers : {&kAllKinds, &kShortBooks}) {
      const Layer l = layer_of(books, *tiers, hidden, width, group, 3, 5, random);
      std::string plan;
      const std::vector<float> out = run_moe(l, {.sums_tokens = 5, .slices = true}, &plan);
      EXPECT_EQ(plan, "vq slices (partial sums, units)");
      expect_moe(l, out, "slices, " + std::to_string(hidden));
      EXPECT_EQ(run_moe(l, {.sums_tokens = 2, .slices = true}), out);
      EXPECT_EQ(run_moe(l, {.sums_tokens = 1, .slices = true}), out);
    }
}

// A kind by itself, whose blocks are all there are: more than slices, and fewer.
TEST_F(SlicesCuda, ExpertsOfOneKindStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  for (int tier = 0; tier < kTiers; ++tier) {
    const Tiers tiers(4, {tier, tier, tier});
    const Layer l = layer_of(books, tiers, 2184, 1048, 128, 3, 4, random);
    const std::vector<float> out = run_moe(l, {.sums_tokens = 4, .slices = true});
    expect_moe(l, out, "slices of tier " + std::to_string(tier));
    EXPECT_EQ(run_moe(l, {.sums_tokens = 1, .slices = true}), out);
  }
}

// However many tokens have room at once, the same bits. Would show a last tile, slice or scale of
// the wrong size, or scratch that is read but not written.
TEST_F(SlicesCuda, DrawnExpertsBySlicesStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  for (int draw = 0; draw < 6; ++draw) {
    auto [l, text] = drawn_layer(books, false, kSliceScaleColumns, random);
    l.part_columns = slice_columns(UnitLaunch::k8x256);
    std::string plan;
    const std::vector<float> out = run_moe(l, {.sums_tokens = l.n_tokens(), .slices = true}, &plan);
    EXPECT_EQ(plan.substr(0, 9), "vq slices");
    expect_moe(l, out, text);
    EXPECT_EQ(run_moe(l, {.sums_tokens = 1 + random.below(l.n_tokens()), .slices = true}), out)
        << text;
  }
}

// GLM-5.2's own widths, and a mixture as its release has, are planned so.
TEST_F(SlicesCuda, LargeExpertsThatMixTiersGoBySlices) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  const Tiers mixture = {{0, 0, 0}, {0, 0, 2}, {0, 2, 0}, {3, 0, 3},
                         {0, 3, 0}, {2, 3, 0}, {0, 0, 3}, {3, 2, 2}};
  const Layer l = layer_of(books, mixture, 6144, 2048, 128, 8, 1, random);
  std::string plan;
  const std::vector<float> out = run_moe(l, {}, &plan);
  EXPECT_EQ(plan, "vq slices (partial sums, units)");
  expect_moe(l, out, "GLM-5.2, mixture by slices");
  EXPECT_EQ(run_moe(l, {.sums_tokens = 3, .slices = true}), out);

  // Where memory is short, in units.
  const auto bytes = [&](const UnitPlan& of) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < l.host.size(); ++i)
      n += unit_bytes(l.host[i].vq, of.of(static_cast<int>(i % 3)).form(l.host[i].vq));
    return n;
  };
  const UnitPlan fast = plan_moe_units(l.matrices(), l.top_k),
                 small = plan_moe_units(l.matrices(), l.top_k, MoeLayout::kSmallest);
  EXPECT_TRUE(fast.is_by_slices());
  EXPECT_TRUE(small.is_in_units() && !small.is_by_slices() && !small.is_by_sums());
  EXPECT_LT(bytes(small), bytes(fast));
}

TEST_F(SlicesCuda, LargeExpertsOfOneAndAHalfBitsGoBySlices) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  const Layer l = layer_of(books, Tiers(2, {1, 1, 1}), 2048, 1024, 128, 2, 1, random);
  std::string plan;
  const std::vector<float> out = run_moe(l, {}, &plan);
  EXPECT_EQ(plan, "vq slices (units)");
  expect_moe(l, out, "1.5 bits by slices");
}

// As few tokens as a launch has blocks for, and more of them: other blocks, the same bits.
TEST_F(SlicesCuda, BitsOfSlicesDoNotDependOnTheBatch) {
  Random random(14);
  const Books books = codebooks(random);
  const int hidden = under_racecheck() ? 328 : 1032, width = under_racecheck() ? 136 : 520;
  const Layer l = layer_of(books, kAllKinds, hidden, width, 128, 4, 9, random);
  const std::vector<float> all = run_moe(l, {.sums_tokens = 9, .slices = true});
  expect_moe(l, all, "batch");
  for (const auto& [first, n] : sizes<std::pair<int, int>>(
           {{0, 1}, {3, 1}, {8, 1}, {0, 2}, {2, 5}, {1, 8}}, {{3, 1}, {2, 5}}))
    EXPECT_EQ(
        run_moe(part_of(l, first, n), {.sums_tokens = 4, .slices = true}),
        std::vector<float>(all.begin() + first * l.hidden, all.begin() + (first + n) * l.hidden))
        << first << ", " << n << " tokens";
}

// An expert's result is its own, whatever kinds are chosen beside it.
TEST_F(SlicesCuda, AnExpertsBitsDoNotDependOnWhatIsChosenBesideIt) {
  Random random(15);
  const Books books = codebooks(random);
  Layer l = layer_of(books, kAllKinds, 1032, 520, 128, 3, 6, random);
  // Expert 2 first, weight 1, beside others of weight 0; nothing else is added.
  constexpr int kBeside[6][3] = {{0, 1, 2}, {2, 3, 4}, {0, 2, 5}, {1, 2, 3}, {2, 4, 5}, {1, 2, 5}};
  for (auto* v : {&l.shared, &l.residual}) std::fill(v->begin(), v->end(), 0.0f);
  for (int t = 0; t < 6; ++t)
    for (int k = 0; k < 3; ++k) {
      const auto slot = static_cast<std::size_t>(3 * t + k);
      l.expert[slot] = kBeside[t][k];
      l.weight[slot] = kBeside[t][k] == 2 ? 1.0f : 0.0f;
    }
  for (int t = 1; t < 6; ++t)
    std::copy_n(l.x.begin(), l.hidden, l.x.begin() + static_cast<std::ptrdiff_t>(t) * l.hidden);
  const std::vector<float> out = run_moe(l, {.sums_tokens = 6, .slices = true});
  for (int t = 1; t < 6; ++t)
    EXPECT_TRUE(std::equal(out.begin(), out.begin() + l.hidden, out.begin() + t * l.hidden)) << t;
}

// Several slices, the last not full; in units and by the row the same bits. Would show a slice that
// is left out or added twice, and a code, scale or half of x that is not the row's.
TEST_F(SlicesCuda, MixedExpertsAreExactOnIntegers) {
  Random random(24);
  const Books books = codebooks(random, true);
  const bool few = under_racecheck();
  for (const Tiers* tiers : {&kAllKinds, &kShortBooks}) {
    const Layer l = whole_layer(books, *tiers, few ? 328 : 1160, few ? 96 : 520, 128, 2, 4, random);
    const std::vector<float> expected = exact_moe(l);
    EXPECT_EQ(run_moe(l, {.sums_tokens = 4, .slices = true}), expected);
    if (few) continue;
    EXPECT_EQ(run_moe(l), expected) << "in units";
    EXPECT_EQ(run_moe(l, {.rows = true}), expected) << "by the row";
  }
}

// Far beyond binary16 either way, all zero, and one value that outweighs its neighbours.
TEST_F(SlicesCuda, SlicesOfInputsOfAnySizeStayWithinTheBound) {
  Random random(fresh_seed());
  const Books books = codebooks(random);
  Layer l = layer_of(books, kAllKinds, 1088, 96, 128, 3, 4, random);
  for (auto* v : {&l.shared, &l.residual}) std::fill(v->begin(), v->end(), 0.0f);
  for (int c = 0; c < l.hidden; ++c) {
    l.x[at(0, l.hidden, c)] *= 1e15f;
    l.x[at(1, l.hidden, c)] *= 1e-12f;
    l.x[at(2, l.hidden, c)] = 0;
  }
  l.x[at(3, l.hidden, 100)] = 1e9f;
  const std::vector<float> out = run_moe(l, {.sums_tokens = 4, .slices = true});
  expect_moe(l, out, "any size");
  for (int r = 0; r < l.hidden; ++r) EXPECT_EQ(out[at(2, l.hidden, r)], 0);
}

TEST_F(SlicesCuda, ANaNOrAnInfinityShowsInItsTokensSlicesAlone) {
  Random random(44);
  const Books books = codebooks(random);
  expect_nan_in_its_token_alone(layer_of(books, kAllKinds, 1088, 96, 128, 3, 3, random),
                                {.sums_tokens = 3, .slices = true});
}

}  // namespace
}  // namespace assay::kernels
