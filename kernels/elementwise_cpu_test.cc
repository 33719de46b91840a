// The cpu kernels that work value by value or row by row: exp, SwiGLU, norms, RoPE, router, sum
// over experts.
#include <limits>
#include <numeric>

#include "kernels/cpu_kernels_testing.h"
#include "kernels/elementary.h"
#include "kernels/moe_combine.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"

namespace assay::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kWidths[] = {1, 5, 15, 16, 17, 31, 32, 64, 100, 320};

using ElementwiseCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(ElementwiseCpu);

TEST_P(ElementwiseCpu, ExpIsWithinTwoUnitsInTheLastPlace) {
  std::vector<float> x;
  for (float v = -103.9f; v < 88.7f; v += 0.00173f) x.push_back(v);
  std::vector<float> y(x.size()), expected(x.size());
  std::vector<double> tolerance(x.size());
  exp_cpu(GetParam(), x.data(), static_cast<int>(x.size()), y.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    expected[i] = static_cast<float>(exp_f64(static_cast<double>(x[i])));
    tolerance[i] = 2 * static_cast<double>(std::nextafter(expected[i], kInf) - expected[i]);
  }
  expect_within(expected, y, tolerance);
}

TEST_P(ElementwiseCpu, ExpKnowsItsEnds) {
  const std::vector<float> x = {0.0f, -0.0f, -kInf, kInf, kNan, -1000, 1000, 88.8f, -104.5f};
  std::vector<float> y(x.size());
  exp_cpu(GetParam(), x.data(), static_cast<int>(x.size()), y.data());
  EXPECT_EQ(first_difference({1, 1, 0, kInf, kNan, 0, kInf, kInf, 0}, y), "");
}

TEST_P(ElementwiseCpu, SwigluAgreesWithTheReference) {
  for (const int n : kWidths) {
    const auto gate = random_floats(static_cast<std::size_t>(n), 1, 20);
    const auto up = random_floats(static_cast<std::size_t>(n), 2);
    std::vector<float> expected(gate.size()), got(gate.size());
    swiglu_reference(gate.data(), up.data(), n, expected.data());
    swiglu_cpu(GetParam(), gate.data(), up.data(), n, got.data());
    // exp is 2 units off, and an addition, a division and a product round by half a unit each.
    std::vector<double> tolerance;
    for (const float v : expected) tolerance.push_back(8 * 0x1p-24 * std::abs(v) + 1e-40);
    expect_within(expected, got, tolerance);

    std::vector<float> turns(static_cast<std::size_t>((n + 15) / 16) * 32), from_turns(gate.size());
    for (int i = 0; i < n; ++i) {
      turns[i / 16 * 32 + i % 16] = gate[i];
      turns[i / 16 * 32 + 16 + i % 16] = up[i];
    }
    swiglu_in_turn_cpu(GetParam(), turns.data(), n, from_turns.data());
    EXPECT_EQ(first_difference(got, from_turns), "") << n;
  }
}

TEST_P(ElementwiseCpu, NormsAreWithinRoundingOfTheReference) {
  for (const int n : kWidths) {
    const auto size = static_cast<std::size_t>(n);
    const auto x = random_floats(size, 3, 3), weight = random_floats(size, 4),
               bias = random_floats(size, 5);
    std::vector<float> expected(size), got(size);
    // A lane sums n/16 squares and the tree four more times, each rounding by 2^-24; the root
    // halves that, and five further operations round.
    const double relative = (n / 16.0 + 4) * 0.5 * 0x1p-24 + 6 * 0x1p-24;
    rms_norm_reference(x.data(), weight.data(), 1e-5f, n, expected.data());
    rms_norm_cpu(GetParam(), x.data(), weight.data(), 1e-5f, n, got.data());
    std::vector<double> tolerance(size);
    for (std::size_t i = 0; i < size; ++i) tolerance[i] = relative * std::abs(expected[i]);
    expect_within(expected, got, tolerance);

    if (n < 5) continue;  // the variance of few values cancels
    layer_norm_reference(x.data(), weight.data(), bias.data(), 1e-6f, n, expected.data());
    layer_norm_cpu(GetParam(), x.data(), weight.data(), bias.data(), 1e-6f, n, got.data());
    // Besides, the mean of values up to 3 is off by (n/16 + 5) 2^-24 · 3 at most, which the scale
    // (below 1 here: the spread of ±3 is 1.7) and the weight (below 1) do not enlarge; and the
    // deviations in the variance shift by as much.
    for (std::size_t i = 0; i < size; ++i)
      tolerance[i] = 2 * relative * (std::abs(expected[i]) + 3) + (n / 16.0 + 5) * 0x1p-24 * 3;
    expect_within(expected, got, tolerance);
  }
}

TEST_P(ElementwiseCpu, NormsOfSmallWholeNumbersAreExact) {
  const std::vector<float> x(64, -2.0f),
      weight(64, 3.0f);  // mean square 4, eps 0: every step exact
  std::vector<float> expected(64), got(64);
  rms_norm_reference(x.data(), weight.data(), 0, 64, expected.data());
  rms_norm_cpu(GetParam(), x.data(), weight.data(), 0, 64, got.data());
  EXPECT_EQ(first_difference(expected, got), "");
}

RouteArgs route_args(const std::vector<float>& logits, const std::vector<float>& bias, int top_k,
                     std::vector<int>* expert, std::vector<float>* weight, float* margin) {
  expert->assign(static_cast<std::size_t>(top_k), -1);
  weight->assign(static_cast<std::size_t>(top_k), -1);
  return {.logits = logits.data(),
          .bias = bias.data(),
          .n_experts = static_cast<int>(logits.size()),
          .top_k = top_k,
          .normalise = true,
          .scaling = 2.5f,
          .expert = expert->data(),
          .weight = weight->data(),
          .margin = margin};
}

TEST_P(ElementwiseCpu, RouterChoosesAsTheReferenceDoes) {
  for (const int n : {1, 7, 16, 33, 256})
    for (int seed = 0; seed < 20; ++seed) {
      const int top_k = std::min(n, 8);
      const auto logits = random_floats(static_cast<std::size_t>(n), 10 + seed, 3);
      const auto bias = random_floats(static_cast<std::size_t>(n), 50 + seed, 0.1);
      std::vector<int> expected_expert, expert;
      std::vector<float> expected_weight, weight;
      float expected_margin, margin;
      route_reference(
          route_args(logits, bias, top_k, &expected_expert, &expected_weight, &expected_margin));
      if (expected_margin < 1e-6f) continue;
      route_cpu(GetParam(), route_args(logits, bias, top_k, &expert, &weight, &margin));
      EXPECT_EQ(expected_expert, expert) << n << " experts, seed " << seed;
      if (top_k < n) {
        EXPECT_NEAR(margin, expected_margin, 4e-7f) << "two scores below 1.1, rounded";
      }
      // Eight scores are summed: seven roundings, and four in sigmoid, quotient and product.
      std::vector<double> tolerance;
      for (const float v : expected_weight) tolerance.push_back(16 * 0x1p-24 * v);
      expect_within(expected_weight, weight, tolerance);
    }
}

TEST_P(ElementwiseCpu, RouterBreaksTiesByIndexAndRanksNanLast) {
  const std::vector<float> logits = {kNan, 1, 2, 1, 1, -3}, bias(6, 0.0f);
  std::vector<int> expert;
  std::vector<float> weight;
  float margin;
  route_cpu(GetParam(), route_args(logits, bias, 3, &expert, &weight, &margin));
  EXPECT_EQ(expert, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(margin, 0);
}

TEST_P(ElementwiseCpu, ExpertsAreSummedInOrderAndTheSharedOneLast) {
  for (const int n : kWidths) {
    const auto size = static_cast<std::size_t>(n);
    const auto a = random_floats(size, 1), b = random_floats(size, 2),
               shared = random_floats(size, 3), residual = random_floats(size, 4);
    const float* out[] = {a.data(), b.data()};
    const float weight[] = {0.3f, 1.7f};
    auto got = residual, expected = residual;
    moe_combine_cpu(GetParam(), {.expert_out = out,
                                 .weight = weight,
                                 .top_k = 2,
                                 .shared_out = shared.data(),
                                 .n = n,
                                 .residual = got.data()});
    for (std::size_t i = 0; i < size; ++i)
      expected[i] += std::fma(weight[1], b[i], std::fma(weight[0], a[i], 0.0f)) + shared[i];
    EXPECT_EQ(first_difference(expected, got), "") << n;
  }
}

TEST(ElementwiseCpuTargets, GiveTheSameBits) {
  const auto targets = usable_cpu_targets();
  if (targets.size() < 2) GTEST_SKIP() << "one instruction set only";
  for (const int n : kWidths) {
    const auto size = static_cast<std::size_t>(n);
    const auto x = random_floats(size, 6, 8), w = random_floats(size, 7),
               b = random_floats(size, 8);
    const auto all = [&](CpuTarget t) {
      std::vector<float> y(size * 5 + 9);
      rms_norm_cpu(t, x.data(), w.data(), 1e-5f, n, y.data());
      layer_norm_cpu(t, x.data(), w.data(), b.data(), 1e-6f, n, y.data() + size);
      swiglu_cpu(t, x.data(), w.data(), n, y.data() + 2 * size);
      exp_cpu(t, x.data(), n, y.data() + 3 * size);
      std::vector<int> expert;
      std::vector<float> weight;
      route_cpu(t, route_args(x, b, std::min(n, 8), &expert, &weight, &y[4 * size]));
      std::copy(weight.begin(), weight.end(), y.begin() + 4 * n + 1);
      return y;
    };
    EXPECT_EQ(first_difference(all(targets[0]), all(targets[1])), "") << n;
  }
}

TEST(RopeCpu, IsWithinTwoRoundingsOfTheReference) {
  const RopeTable table(8e6, 64);
  std::vector<float> cosine(32), sine(32);
  for (const bool interleaved : {true, false}) {
    table.angles(12345, cosine.data(), sine.data());
    const auto x = random_floats(64, 1);
    auto expected = x, got = x;
    rope_reference(cosine.data(), sine.data(), 64, interleaved, expected.data());
    rope_cpu(cosine.data(), sine.data(), 64, interleaved, got.data());
    // Two products of values below 1 and their sum, below 2: three roundings of at most 2^-24.
    expect_within(expected, got, std::vector<double>(64, 4 * 0x1p-24));
  }
}

}  // namespace
}  // namespace assay::kernels
