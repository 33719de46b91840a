// How experts in partial sums are laid out, without a GPU: which layers are, where a code lies and
// which rows a lane has. That units mean what their matrix does is bf16_weights_test's.
#include "kernels/vq_sums.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "kernels/vq_testing.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kH200 = 227 * 1024, kRtxPro6000 = 99 * 1024;
const float kBooks[3] = {};  // whose addresses tell codebooks apart

// Tiers 0 and 1: 1 and 2 bits.
std::vector<VqMatrix> experts(const std::vector<int>& tiers, int hidden = 6144, int width = 2048,
                              int group = 128) {
  std::vector<VqMatrix> out;
  for (std::size_t i = 0; i < tiers.size(); ++i)
    out.push_back({.codebook = kBooks + tiers[i],
                   .n_rows = i % 3 < 2 ? width : hidden,
                   .n_cols = i % 3 < 2 ? hidden : width,
                   .dim = tiers[i] == 0 ? 8 : 4,
                   .n_codes = 256,
                   .index_bits = 8,
                   .group = group});
  return out;
}

TEST(VqSums, GateAndUpHaveOneCodebookAndDownHasOne) {
  const auto planned = [](const std::vector<VqMatrix>& layer, std::size_t shared_bytes = kH200) {
    return plan_sums(layer, 2, shared_bytes).is_by_sums();
  };
  EXPECT_TRUE(planned(experts({0, 0, 0, 0, 0, 0})));
  EXPECT_TRUE(planned(experts({1, 1, 1})));
  EXPECT_TRUE(planned(experts({1, 1, 0, 1, 1, 0})));
  EXPECT_FALSE(planned(experts({0, 1, 0})));
  EXPECT_FALSE(planned(experts({0, 0, 0, 0, 0, 1})));
  EXPECT_FALSE(planned(experts({0, 0, 0}), kRtxPro6000));
  EXPECT_FALSE(planned(experts({0, 0, 0}, 6144, 2048, 64)));
  EXPECT_TRUE(planned(experts({0, 0, 0}, 320, 96, 320)));  // no row has more than one scale
  auto layer = experts({0, 0, 0});
  layer[1].codebook = kBooks + 2;
  EXPECT_FALSE(planned(layer));
  layer = experts({0, 0, 0});
  layer[2].index_bits = 12;
  EXPECT_FALSE(planned(layer));
  layer = experts({0, 0, 0});
  layer[0].n_books = 2;
  EXPECT_FALSE(planned(layer));
}

TEST(VqSums, PayWhereATableServesManyRowsAndColumnsFillSlices) {
  EXPECT_TRUE(sums_pay(experts({0, 0, 0})));
  EXPECT_TRUE(sums_pay(experts({1, 1, 1})));
  EXPECT_TRUE(sums_pay(experts({0, 0, 0}, 6144, 1024)));
  EXPECT_FALSE(sums_pay(experts({0, 0, 0}, 6144, 256)));
  EXPECT_FALSE(sums_pay(experts({0, 0, 0}, 6144, 1088)));  // two slices of 1024
  EXPECT_FALSE(sums_pay(experts({0, 0, 0}, 320, 96)));
}

TEST(VqSums, TakeNoMoreMemoryThanTheirFiles) {
  for (const VqMatrix& w : experts({0, 0, 0, 1, 1, 1})) {
    const UnitPlan plan = plan_sums(std::vector<VqMatrix>{w, w, w}, 8, kH200);
    EXPECT_EQ(unit_bytes(w, plan.gate_up.form(w)),
              static_cast<std::size_t>(w.n_rows) *
                  static_cast<std::size_t>(4 * w.row_words() + 2 * w.n_groups()));
  }
}

TEST(VqSums, CodesAndScalesHavePlacesOfTheirOwn) {
  for (const int dim : {4, 8}) {
    std::set<int> places;
    for (int row = 0; row < kVqUnitRows; ++row) {
      for (int code = 0; code < kSumsCodes; ++code) {
        const int at = sums_code_at(row, code);
        EXPECT_TRUE(places.insert(at).second) << row << ", " << code;
        EXPECT_EQ(at % 512 / 16, code / 4);  // the lane's pieces
        EXPECT_EQ(at % 4, code % 4);
      }
      for (int col = 0; col < sums_columns(dim); col += 128)
        for (const int byte : {0, 1})
          EXPECT_TRUE(places.insert(sums_scale_at(dim, row, col + 64) + byte).second);
    }
    EXPECT_EQ(*places.rbegin() + 1, sums_unit_bytes(dim));
    EXPECT_EQ(static_cast<int>(places.size()), sums_unit_bytes(dim));
  }
}

// Value j of a lane belongs to row j ^ sums_row(lane); what is sent to it belongs there too.
TEST(VqSums, LanesThatExchangeValuesMeanTheSameRow) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto row = [](int l, int j) { return j ^ sums_row(l); };
    for (int offset = 1, n = 4; offset <= 4; offset *= 2, n /= 2)
      for (int j = 0; j < n; ++j) EXPECT_EQ(row(lane ^ offset, j + n), row(lane, j)) << offset;
    for (const int offset : {8, 16}) EXPECT_EQ(row(lane ^ offset, 0), row(lane, 0));
    // Of dim 8 four lanes share scales, each of them those of its last two rows, a word.
    const int col = lane / 4 * 128, word = sums_scale_at(8, row(lane, 0), col);
    EXPECT_EQ(word, kSumsCodeBytes + lane / 4 * 16 + sums_row(lane) / 2 * 4);
    EXPECT_EQ(sums_scale_at(8, row(lane, 1), col), word + 2);
    EXPECT_EQ(sums_scale_at(4, row(lane, 0), lane / 8 * 128),
              kSumsCodeBytes + lane / 8 * 16 + sums_row(lane) * 2);
  }
}

// The result is a function of the matrix, not of who packed which tile.
TEST(VqSums, ThreadsChangeNothing) {
  const RandomVq m({300, 520, 4, 256, 8, 1, 128}, 3, false);
  ThreadPool one(1), four(4);
  EXPECT_EQ(pack_sums(m.view(), one), pack_sums(m.view(), four));
  EXPECT_EQ(pack_sums(m.view(), one).size(), std::size_t{38 * 2} * (1024 + 64));
}

}  // namespace
}  // namespace assay::kernels
