// The router's choice on a GPU against the reference. Needs a GPU; says so and skips where there is
// none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/layer_cuda.h"
#include "kernels/route.h"

namespace assay::kernels {
namespace {

struct Choice {
  std::vector<int> expert;    // (n_rows, k)
  std::vector<float> weight;  // (n_rows, k)
  std::vector<float> margin;  // (n_rows)
};

struct Router {
  std::vector<float> bias;
  int top_k;
  bool normalise = true;
  int n_experts() const { return static_cast<int>(bias.size()); }

  Choice by_cuda(const std::vector<float>& logits) const {
    const std::size_t n_rows = logits.size() / bias.size(),
                      n = n_rows * static_cast<std::size_t>(top_k);
    const DeviceArray<float> d_logits(logits), d_bias(bias);
    const DeviceArray<int> expert(std::vector<int>(n, -1));
    const auto weight = poisoned(n), margin = poisoned(n_rows);
    route_cuda({.logits = d_logits.data(),
                .bias = d_bias.data(),
                .n_rows = static_cast<int>(n_rows),
                .n_experts = n_experts(),
                .top_k = top_k,
                .normalise = normalise,
                .scaling = 2.5f,
                .expert = expert.data(),
                .weight = weight.data(),
                .margin = margin.data()},
               nullptr);
    return {expert.host(), weight.host(), margin.host()};
  }
  Choice by_reference(const std::vector<float>& logits) const {
    const std::size_t n_rows = logits.size() / bias.size(), k = static_cast<std::size_t>(top_k);
    Choice c{std::vector<int>(n_rows * k), std::vector<float>(n_rows * k),
             std::vector<float>(n_rows)};
    for (std::size_t r = 0; r < n_rows; ++r)
      route_reference({.logits = &logits[r * bias.size()],
                       .bias = bias.data(),
                       .n_experts = n_experts(),
                       .top_k = top_k,
                       .normalise = normalise,
                       .scaling = 2.5f,
                       .expert = &c.expert[r * k],
                       .weight = &c.weight[r * k],
                       .margin = &c.margin[r]});
    return c;
  }
};

// Both compute in double, to some 1e-15, and round once: to neighbouring floats at worst, and a
// small margin is a difference of doubles.
void expect_same(const Choice& got, const Choice& want, const std::string& what) {
  ASSERT_EQ(got.expert, want.expert) << what;
  for (std::size_t i = 0; i < want.weight.size(); ++i)
    ASSERT_NEAR(got.weight[i], want.weight[i], 0x1p-23 * std::abs(want.weight[i])) << what;
  for (std::size_t i = 0; i < want.margin.size(); ++i)
    if (std::isinf(want.margin[i]))
      ASSERT_EQ(got.margin[i], want.margin[i]) << what;
    else
      ASSERT_NEAR(got.margin[i], want.margin[i], 0x1p-23 * std::abs(want.margin[i]) + 1e-14)
          << what;
}

// Experts, chosen.
const auto kShapes = sizes<std::pair<int, int>>({{1, 1},
                                                 {2, 1},
                                                 {4, 4},
                                                 {16, 4},
                                                 {31, 5},
                                                 {32, 32},
                                                 {33, 8},
                                                 {64, 1},
                                                 {100, 32},
                                                 {160, 6},
                                                 {256, 8},
                                                 {257, 8},
                                                 {384, 8},
                                                 {1000, 31},
                                                 {1024, 1},
                                                 {1024, 32}},
                                                {{31, 5}, {256, 8}, {257, 8}, {1024, 32}});

std::string name_of(std::pair<int, int> shape) {
  return std::to_string(shape.second) + " of " + std::to_string(shape.first) + " experts";
}

TEST_F(Cuda, RoutingIsTheReferences) {
  Random random(fresh_seed());
  auto shapes = kShapes;
  for (int i = 0; i < (under_racecheck() ? 1 : 20); ++i) {
    const int n = 1 + random.below(1024);
    shapes.emplace_back(n, 1 + random.below(std::min(n, 32)));
  }
  for (const auto& shape : shapes)
    for (const bool normalise : {true, false}) {
      const auto n = static_cast<std::size_t>(shape.first);
      const Router router = {random.floats(n), shape.second, normalise};
      const std::vector<float> logits = random.floats(5 * n);
      expect_same(router.by_cuda(logits), router.by_reference(logits), name_of(shape));
    }
}

// Few different scores: most choices are among equals.
TEST_F(Cuda, EqualScoresGoToTheLowerExpert) {
  Random random(fresh_seed());
  for (const auto& shape : kShapes)
    for (const int n_values : {1, 2, 3}) {
      const auto n = static_cast<std::size_t>(shape.first);
      const Router router = {std::vector<float>(n, 0.25f), shape.second};
      std::vector<float> logits;
      for (std::size_t i = 0; i < 4 * n; ++i)
        logits.push_back(0.5f * static_cast<float>(random.below(n_values)));
      expect_same(router.by_cuda(logits), router.by_reference(logits), name_of(shape));
    }
}

TEST_F(Cuda, ANaNLogitRanksLast) {
  Random random(fresh_seed());
  const float kNan = std::nanf("");
  for (const auto& shape : kShapes) {
    const auto n = static_cast<std::size_t>(shape.first);
    const Router router = {random.floats(n), shape.second};
    std::vector<float> logits = random.floats(n), finite = logits;
    for (std::size_t e = 0; e < n; e += 3) {
      logits[e] = kNan;
      finite[e] = -1e4f;  // a score of 0, and with the bias below all others
    }
    Router without = router;
    for (std::size_t e = 0; e < n; e += 3) without.bias[e] = -1e4f;
    EXPECT_EQ(router.by_cuda(logits).expert, without.by_reference(finite).expert) << name_of(shape);
  }
  const Router all = {random.floats(40), 3};
  EXPECT_EQ(all.by_cuda(std::vector<float>(40, kNan)).expert, (std::vector<int>{0, 1, 2}));
}

TEST_F(Cuda, ARowsChoiceHasTheSameBitsWhateverIsBesideIt) {
  Random random(fresh_seed());
  for (const auto& shape : kShapes) {
    const auto n = static_cast<std::size_t>(shape.first),
               k = static_cast<std::size_t>(shape.second);
    const Router router = {random.floats(n), shape.second};
    const std::vector<float> logits = random.floats(3 * n);
    const Choice all = router.by_cuda(logits);
    for (std::size_t r = 0; r < 3; ++r) {
      const auto row = static_cast<std::ptrdiff_t>(r * n), at = static_cast<std::ptrdiff_t>(r * k),
                 rows = static_cast<std::ptrdiff_t>(n), ks = static_cast<std::ptrdiff_t>(k);
      const Choice one = router.by_cuda({logits.begin() + row, logits.begin() + row + rows});
      EXPECT_TRUE(std::equal(one.expert.begin(), one.expert.end(), all.expert.begin() + at));
      EXPECT_EQ(one.weight,
                std::vector<float>(all.weight.begin() + at, all.weight.begin() + at + ks));
      EXPECT_EQ(one.margin[0], all.margin[r]);
    }
  }
}

}  // namespace
}  // namespace assay::kernels
