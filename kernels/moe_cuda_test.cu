// The routed experts on a GPU against the reference: row by row and from tables, every tier, exact
// on integers, within a bound, and the same bits whatever the batch. Need a GPU.
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/moe_cuda.h"

namespace assay::kernels {
namespace {

// A layer's experts, and what a token's chosen ones make of it in double precision.
struct Layer {
  std::vector<HostMatrix> host;  // (n_experts, 3)
  int hidden, width, top_k;
  std::vector<int> expert;
  std::vector<float> weight, x, shared, residual;

  int n_tokens() const { return static_cast<int>(expert.size()) / top_k; }
  // The value, and the sum of the sizes of its terms.
  std::pair<double, double> expected(int token, int row) const {
    double sum = static_cast<double>(residual[static_cast<std::size_t>(token * hidden + row)]) +
                 static_cast<double>(shared[static_cast<std::size_t>(token * hidden + row)]);
    double size = std::abs(sum);
    for (int k = 0; k < top_k; ++k) {
      const auto slot = static_cast<std::size_t>(token * top_k + k);
      const std::vector<double>& h = hidden_of(token, expert[slot]);
      for (int i = 0; i < width; ++i) {
        const double term = static_cast<double>(weight[slot]) *
                            host[static_cast<std::size_t>(3 * expert[slot] + 2)].at(row, i) *
                            h[static_cast<std::size_t>(i)];
        sum += term;
        size += std::abs(term);
      }
    }
    return {sum, size};
  }
  const std::vector<double>& hidden_of(int token, int e) const {
    auto& h = memo[{token, e}];
    for (int i = 0; h.size() < static_cast<std::size_t>(width); ++i) {
      double g = 0, u = 0;
      for (int c = 0; c < hidden; ++c) {
        const auto v = static_cast<double>(x[static_cast<std::size_t>(token * hidden + c)]);
        g += host[static_cast<std::size_t>(3 * e)].at(i, c) * v;
        u += host[static_cast<std::size_t>(3 * e + 1)].at(i, c) * v;
      }
      h.push_back(g / (1 + std::exp(-g)) * u);
    }
    return h;
  }
  mutable std::map<std::pair<int, int>, std::vector<double>> memo;
};

constexpr auto kSums = MoeTier::Design::kPartialSums, kCodewords = MoeTier::Design::kCodewords;

std::vector<float> run_moe(const Layer& l, MoeTier::Design preferred = kSums, int parts_tokens = 2,
                           std::string* plan_text = nullptr) {
  DeviceWeights memory;
  std::vector<DeviceMatrix> experts;
  for (const HostMatrix& m : l.host) experts.push_back(m.upload(memory));
  const MoePlan plan = plan_moe(experts, preferred);
  if (plan_text != nullptr) *plan_text = plan.text();
  const DeviceArray<DeviceMatrix> d_experts(experts);
  const DeviceArray<int> expert(l.expert);
  const DeviceArray<float> weight(l.weight), x(l.x), shared(l.shared), residual(l.residual);
  const auto h = poisoned(l.expert.size() * static_cast<std::size_t>(l.width));
  const auto parts = poisoned(static_cast<std::size_t>(parts_tokens) *
                              plan.parts_per_token(l.top_k, l.hidden, l.width));
  moe_cuda({.plan = &plan,
            .experts = d_experts.data(),
            .expert = expert.data(),
            .weight = weight.data(),
            .n_tokens = l.n_tokens(),
            .top_k = l.top_k,
            .hidden = l.hidden,
            .width = l.width,
            .x = x.data(),
            .h = h.data(),
            .parts = parts.data(),
            .parts_tokens = parts_tokens,
            .shared = shared.data(),
            .residual = residual.data()},
           nullptr);
  return residual.host();
}

void expect_moe(const Layer& l, const std::vector<float>& out, const char* what) {
  double worst = 0;
  for (int t = 0; t < l.n_tokens(); ++t)
    for (int r = 0; r < l.hidden; ++r) {
      const auto [sum, size] = l.expected(t, r);
      // Two products deep: relative errors of h are those of g and u, which random signs keep far
      // below (hidden + 3) · 2^-24 · Σ|terms| of each; the sum of sizes here is what they scale.
      const double bound = 32 * (l.hidden + l.width) * 0x1p-24 * size;
      const double delta =
          std::abs(static_cast<double>(out[static_cast<std::size_t>(t * l.hidden + r)]) - sum);
      ASSERT_LE(delta, bound) << what << ": " << t << ", " << r;
      worst = std::max(worst, delta / bound);
    }
  std::printf("%-24s worst error %.2g of its bound\n", what, worst);
}

Layer random_layer(int hidden, int width, int n_experts, int top_k, int n_tokens, Random& random) {
  Layer l{.host = {}, .hidden = hidden, .width = width, .top_k = top_k};
  for (int t = 0; t < n_tokens; ++t) {
    std::set<int> chosen;
    while (static_cast<int>(chosen.size()) < top_k) chosen.insert(random.below(n_experts));
    l.expert.insert(l.expert.end(), chosen.begin(), chosen.end());
  }
  l.weight = random.floats(l.expert.size());
  const auto n = static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(hidden);
  l.x = random.floats(n), l.shared = random.floats(n), l.residual = random.floats(n);
  return l;
}

TEST_F(Cuda, ExpertsOfDifferentKindsAddUpAsTheReferenceSays) {
  Random random(4);
  Layer l = random_layer(64, 32, 4, 2, 3, random);
  for (int e = 0; e < 4; ++e) {
    l.host.push_back(e % 2 == 0 ? vq(8, 256, 32, 64, 64, false, random)
                                : dense(WeightType::kBf16, 32, 64, false, random));
    l.host.push_back(e % 2 == 0 ? vq(4, 256, 32, 64, 64, false, random)
                                : gptq(4, 32, 64, 32, false, random));
    l.host.push_back(dense(WeightType::kF32, 64, 32, false, random));
  }
  std::string plan;
  const std::vector<float> out = run_moe(l, kSums, 2, &plan);
  EXPECT_EQ(plan, "rows");
  expect_moe(l, out, "rows");
}

struct TierShape {
  int dim, n_codes;
};
constexpr TierShape kTierShapes[] = {{8, 256}, {8, 4096}, {4, 256}, {4, 4096}, {8, 200}, {4, 3000}};

// All experts of one tier share its codebook, as in the release.
HostMatrix of_tier(const std::map<int, std::vector<float>>& books, int tier, int rows, int cols,
                   int group, Random& random) {
  HostMatrix m =
      vq(kTierShapes[tier].dim, kTierShapes[tier].n_codes, rows, cols, group, false, random);
  m.vq.codebook = books.at(tier).data();
  return m;
}

std::map<int, std::vector<float>> codebooks(Random& random, bool bits = false) {
  std::map<int, std::vector<float>> books;
  for (int t = 0; t < static_cast<int>(std::size(kTierShapes)); ++t) {
    books[t] = random.floats(static_cast<std::size_t>(kTierShapes[t].dim) *
                             static_cast<std::size_t>(kTierShapes[t].n_codes));
    for (float& v : books[t])
      v = bits ? static_cast<float>(random.below(2)) : static_cast<float>(__half(v));
  }
  return books;
}

TEST_F(Cuda, GroupedExpertsOfEveryTierStayWithinTheRoundingBound) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  Random random(seed);
  const auto books = codebooks(random);
  for (int tier = 0; tier < static_cast<int>(std::size(kTierShapes)); ++tier)
    for (const auto& [hidden, width, group] :
         {std::tuple{320, 96, 64}, {1088, 2080, 128}, {2176, 40, 64}, {64, 33 * 8, 64}}) {
      Layer l = random_layer(hidden, width, 5, 3, 5, random);
      for (int e = 0; e < 5; ++e) {
        l.host.push_back(of_tier(books, tier, width, hidden, group, random));
        l.host.push_back(of_tier(books, tier, width, hidden, group, random));
        l.host.push_back(of_tier(books, tier, hidden, width, group, random));
      }
      std::string plan;
      expect_moe(l, run_moe(l, kSums, 2, &plan), (std::to_string(tier) + " sums").c_str());
      EXPECT_NE(plan, "rows");
      expect_moe(l, run_moe(l, kCodewords, 2, &plan),
                 (std::to_string(tier) + " codewords").c_str());
      EXPECT_EQ(plan, "vq codewords");
    }
}

TEST_F(Cuda, GroupedExpertsMayMixTiersAndATokensBitsDoNotDependOnItsBatch) {
  Random random(14);
  const auto books = codebooks(random);
  Layer l = random_layer(320, 96, 8, 4, 7, random);
  for (int e = 0; e < 8; ++e) {
    l.host.push_back(of_tier(books, e % 4, 96, 320, 64, random));
    l.host.push_back(of_tier(books, (e + 1) % 4, 96, 320, 64, random));
    l.host.push_back(of_tier(books, (e + 2) % 4, 320, 96, 64, random));
  }
  std::string plan;
  const std::vector<float> all = run_moe(l, kSums, 7, &plan);
  EXPECT_EQ(plan, "vq partial sums + codewords");
  expect_moe(l, all, "mixed");
  EXPECT_EQ(run_moe(l, kSums, 2), all);
  for (int t = 0; t < l.n_tokens(); ++t) {
    Layer one = l;
    const auto part = [&](auto& v, int width) {
      v = {v.begin() + t * width, v.begin() + (t + 1) * width};
    };
    part(one.expert, l.top_k), part(one.weight, l.top_k), part(one.x, l.hidden);
    part(one.shared, l.hidden), part(one.residual, l.hidden);
    EXPECT_EQ(run_moe(one), std::vector<float>(all.begin() + t * 320, all.begin() + (t + 1) * 320));
  }
}

// Every gate is above 100, whose silu is itself in float, and every sum an integer below 2^24.
TEST_F(Cuda, GroupedExpertsAreExactOnIntegers) {
  Random random(24);
  const auto books = codebooks(random, true);
  for (int tier = 0; tier < 4; ++tier) {
    Layer l = random_layer(320, 96, 3, 2, 2, random);
    for (float& v : l.x) v = static_cast<float>(1 + random.below(2));
    for (auto* v : {&l.weight, &l.shared, &l.residual})
      for (float& f : *v) f = static_cast<float>(1 + random.below(2));
    for (int e = 0; e < 3; ++e) {
      for (int p = 0; p < 3; ++p) {
        l.host.push_back(p < 2 ? of_tier(books, tier, 96, 320, 64, random)
                               : of_tier(books, tier, 320, 96, 64, random));
        l.host.back().scales =
            bytes_of(std::vector<std::uint16_t>(l.host.back().scales.size() / 2, to_half(1.0f)));
        l.host.back().vq.scales = l.host.back().scales.data();
      }
    }
    for (const MoeTier::Design design : {kSums, kCodewords}) {
      const std::vector<float> out = run_moe(l, design);
      for (int t = 0; t < l.n_tokens(); ++t)
        for (int r = 0; r < l.hidden; ++r)
          ASSERT_EQ(static_cast<double>(out[static_cast<std::size_t>(t * l.hidden + r)]),
                    l.expected(t, r).first)
              << tier << ": " << t << ", " << r;
    }
  }
}

}  // namespace
}  // namespace assay::kernels
