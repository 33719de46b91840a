// How layers that mix codebooks are laid out slice by slice, without a GPU: which layers are, in
// what forms, and what that takes. That units mean what their matrix does is bf16_weights_test's.
#include "kernels/vq_slices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/vq_testing.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kH200 = 227 * 1024, kRtxPro6000 = 99 * 1024;
const float kBooks[5] = {};  // whose addresses tell codebooks apart

// Of 1, 1.5, 2 and 3 bits: tiers 0 to 3.
std::vector<VqMatrix> experts(const std::vector<int>& tiers, int hidden = 6144, int width = 2048,
                              int group = 128) {
  std::vector<VqMatrix> out;
  for (std::size_t i = 0; i < tiers.size(); ++i)
    out.push_back({.codebook = kBooks + tiers[i],
                   .n_rows = i % 3 < 2 ? width : hidden,
                   .n_cols = i % 3 < 2 ? hidden : width,
                   .dim = tiers[i] < 2 ? 8 : 4,
                   .n_codes = tiers[i] % 2 == 0 ? 256 : 4096,
                   .index_bits = tiers[i] % 2 == 0 ? 8 : 12,
                   .group = group});
  return out;
}

TEST(VqSlices, GateAndUpAndDownHaveOneCodebookOfAKind) {
  const auto planned = [](const std::vector<VqMatrix>& layer, std::size_t shared_bytes = kH200) {
    return plan_slices(layer, 2, shared_bytes).is_by_slices();
  };
  EXPECT_TRUE(planned(experts({0, 1, 2, 3, 2, 1})));
  EXPECT_TRUE(planned(experts({3, 3, 3})));
  EXPECT_FALSE(planned(experts({0, 1, 2}), kRtxPro6000));
  EXPECT_FALSE(planned(experts({0, 1, 2}, 6144, 2048, 64)));
  EXPECT_TRUE(planned(experts({0, 1, 2}, 320, 96, 320)));  // no row has more than one scale
  auto layer = experts({0, 1, 0, 2, 3, 3});
  layer[2].codebook = kBooks + 4;  // down may have one of its own
  EXPECT_TRUE(planned(layer));
  layer = experts({0, 0, 1});
  layer[1].codebook = kBooks + 4;  // gate and up may not
  EXPECT_FALSE(planned(layer));
  layer = experts({0, 1, 2});
  layer[1].n_books = 2;
  EXPECT_FALSE(planned(layer));
  layer[1].n_books = 1, layer[1].dim = 16;
  EXPECT_FALSE(planned(layer));
}

// What is planned can be packed: units of 12-bit codes hold 8,192 columns, partial sums any number.
TEST(VqSlices, WideRowsOfCodesOf4096HaveNoPlan) {
  for (const auto& [hidden, width] : {std::pair{8704, 2048}, {6144, 9216}}) {
    EXPECT_FALSE(plan_slices(experts({3, 1, 1, 3, 3, 3}, hidden, width), 2, kH200).is_by_slices());
    EXPECT_TRUE(plan_slices(experts({0, 2, 2}, hidden, width), 2, kH200).is_by_slices());
  }
  EXPECT_TRUE(plan_slices(experts({3, 1, 1}, 8192, 8192), 2, kH200).is_by_slices());
}

TEST(VqSlices, PayWhereASliceHasManyRowsAndColumnsFillSlices) {
  EXPECT_TRUE(slices_pay(experts({0, 1, 2, 3, 3, 3})));
  EXPECT_TRUE(slices_pay(experts({1, 1, 1})));
  EXPECT_FALSE(slices_pay(experts({3, 3, 3})));  // by measurement
  EXPECT_TRUE(slices_pay(experts({0, 3, 2}, 6144, 1024)));
  EXPECT_FALSE(slices_pay(experts({0, 3, 2}, 6144, 256)));
  EXPECT_TRUE(slices_pay(experts({0, 3, 3}, 6144, 1536)));
  EXPECT_FALSE(slices_pay(experts({3, 3, 0}, 6144, 1536)));  // two slices of 1024
  EXPECT_FALSE(slices_pay(experts({0, 1, 2}, 320, 96)));
}

// Codes of 256 take what their files do, those of 4096 two bits a code more, to whole words.
TEST(VqSlices, CodesOf4096TakeASixthMore) {
  const auto layer = experts({0, 1, 2, 3, 3, 3});
  const UnitPlan plan = plan_slices(layer, 8, kH200);
  for (std::size_t i = 0; i < layer.size(); ++i) {
    const VqMatrix& w = layer[i];
    const UnitForm f = plan.of(static_cast<int>(i % 3)).form(w);
    EXPECT_TRUE(f.sliced);
    EXPECT_EQ(f.bits, w.index_bits == 8 ? 8 : 14);
    EXPECT_EQ(f.for_sums(), w.index_bits == 8);
    const int code_bytes = 4 * w.row_words(), scale_bytes = 2 * w.n_groups();
    EXPECT_EQ(unit_bytes(w, f),
              static_cast<std::size_t>(w.n_rows) *
                  static_cast<std::size_t>(code_bytes / w.index_bits * f.bits + scale_bytes));
  }
}

// Units of a slice follow each other: with rows, not columns, as a neighbour.
TEST(VqSlices, UnitsLieSliceBySlice) {
  const RandomVq m({24, 1536, 4, 4096, 12, 1, 128}, 3, false);
  ThreadPool pool(2);
  const UnitForm whole = {4, 14, 4, false}, sliced = {4, 14, 4, true};
  const auto a = pack_units(m.view(), whole, pool), b = pack_units(m.view(), sliced, pool);
  ASSERT_EQ(a.size(), b.size());
  const auto n = static_cast<std::size_t>(whole.bytes());
  for (std::size_t tile = 0; tile < 3; ++tile)
    for (std::size_t part = 0; part < 3; ++part)
      EXPECT_EQ(std::memcmp(a.data() + (tile * 3 + part) * n, b.data() + (part * 3 + tile) * n, n),
                0)
          << tile << ", " << part;
}

}  // namespace
}  // namespace assay::kernels
