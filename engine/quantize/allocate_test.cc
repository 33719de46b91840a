#include "engine/quantize/allocate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/rng.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

std::vector<AllocationItem> random_items(int n, std::uint64_t seed) {
  std::vector<AllocationItem> items;
  std::uint64_t at = 0;
  const auto draw = [&] { return uniform_at(seed, 0, at++); };
  for (int i = 0; i < n; ++i) {
    AllocationItem item;
    double error = 1 + 10 * draw();
    for (const double cost : {1.0, 1.5, 2.0, 3.0}) {
      item.push_back({cost, error});
      error *= 0.2 + 0.9 * draw();  // now and then more bits do not help
    }
    items.push_back(item);
  }
  return items;
}

double best_by_trying_all(const std::vector<AllocationItem>& items, double budget,
                          std::size_t i = 0) {
  if (i == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const AllocationOption& o : items[i])
    if (o.cost <= budget + 1e-9)
      best = std::min(best, o.error + best_by_trying_all(items, budget - o.cost, i + 1));
  return best;
}

TEST(Allocate, StaysWithinTheBudgetAndNearTheBest) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto items = random_items(6, seed);
    const double budget = 6 * (1.1 + 0.04 * static_cast<double>(seed));
    const auto a = allocate(items, budget);
    ASSERT_TRUE(a);
    const double best = best_by_trying_all(items, budget);
    double cost = 0, error = 0, steepest = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const AllocationOption& o = items[i][static_cast<std::size_t>(a->option[i])];
      cost += o.cost, error += o.error;
      steepest = std::max(steepest, items[i][0].error);
    }
    EXPECT_LE(cost, budget + 1e-9);
    EXPECT_NEAR(cost, a->total_cost, 1e-9);
    EXPECT_NEAR(error, a->total_error, 1e-9);
    EXPECT_LE(a->lower_bound, best + 1e-9) << "seed " << seed;
    EXPECT_GE(error, best - 1e-9);
    EXPECT_LE(error - best, steepest) << "the gap is at most one item's step";
  }
}

TEST(Allocate, OfAWholeModelIsWithinAThousandthOfTheBound) {
  const auto items = random_items(57'600, 9);
  const auto a = allocate(items, 57'600 * 1.71);
  ASSERT_TRUE(a);
  EXPECT_LE(a->total_cost, 57'600 * 1.71);
  EXPECT_LT(a->total_error - a->lower_bound, 1e-3 * a->lower_bound);
}

TEST(Allocate, SpendsOnWhatMattersAndRefusesTheImpossible) {
  const std::vector<AllocationItem> items = {{{1, 10}, {2, 1}}, {{1, 1}, {2, 0.5}}};
  EXPECT_EQ(allocate(items, 3)->option, (std::vector<int>{1, 0}));
  EXPECT_EQ(allocate(items, 4)->option, (std::vector<int>{1, 1}));
  EXPECT_THAT(allocate(items, 1.5).error().message, HasSubstr("the cheapest choice costs 2"));
  EXPECT_THAT(allocate({{}}, 1).error().message, HasSubstr("item 0 has no option"));
  EXPECT_THAT(allocate({{{1, std::numeric_limits<double>::quiet_NaN()}}}, 1).error().message,
              HasSubstr("item 0"));
}

}  // namespace
}  // namespace assay::engine
