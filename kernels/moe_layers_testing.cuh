// For tests: layers of experts of whole numbers, whose results float32 holds exactly, and layers
// whose shapes and codebooks are drawn.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/moe_testing.cuh"

namespace assay::kernels {

// x is in units of this, weights are whole numbers: a gate is 0, or so far from it that float32's
// exp(-gate) is 0 or infinite (beyond 2^128 above 89) and silu(gate) is the gate or 0. What is
// behind silu(gate) · up is in units of its square.
constexpr double kWholeUnit = 128;

inline void make_whole(Layer& l, Random& random) {
  const auto whole = [&](int low, int high) {
    return static_cast<float>(low + random.below(high - low + 1));
  };
  constexpr auto kUnit = static_cast<float>(kWholeUnit);
  for (float& v : l.x) v = whole(-1, 1) * kUnit;
  for (float& v : l.weight) v = whole(1, 3);
  for (auto* v : {&l.shared, &l.residual})
    for (float& f : *v) f = whole(-9, 9) * kUnit * kUnit;
  for (HostMatrix& m : l.host) {
    if (m.kind != HostMatrix::Kind::kVq) continue;
    std::vector<std::uint16_t> scales(m.scales.size() / 2);
    for (std::uint16_t& s : scales) s = to_half(whole(1, 2));
    m.scales = bytes_of(scales);
    m.vq.scales = m.scales.data();
  }
}

// What a layer of whole numbers makes, to the bit and by every design. Terms of a product are below
// 2^23 units in sum of their sizes, which is made sure of: halves of 11 bits each hold them, tensor
// cores cut nothing off (what is below 2^-23 of the largest: gemm_testing.cuh), tables and scratch
// are float32, and no order of additions rounds.
inline std::vector<float> exact_moe(const Layer& l) {
  const auto product = [&l](int matrix, int row, const std::vector<double>& in, double unit) {
    const std::vector<float>& w = l.decoded(matrix);
    const int n = static_cast<int>(in.size());
    double sum = 0, size = 0;
    for (int c = 0; c < n; ++c) {
      const double term = static_cast<double>(w[at(row, n, c)]) * in[static_cast<std::size_t>(c)];
      sum += term, size += std::abs(term);
    }
    EXPECT_TRUE(size < 0x1p23 * unit && std::fmod(sum, unit) == 0)
        << "this layer is not exact: " << size << " of units of " << unit;
    return sum;
  };
  std::vector<float> out;
  for (int t = 0; t < l.n_tokens(); ++t) {
    const auto x = l.x.begin() + static_cast<std::ptrdiff_t>(at(t, l.hidden, 0));
    const std::vector<double> in(x, x + l.hidden);
    std::vector<double> sum, size;
    for (int r = 0; r < l.hidden; ++r) {
      const auto before = static_cast<double>(l.residual[at(t, l.hidden, r)]),
                 beside = static_cast<double>(l.shared[at(t, l.hidden, r)]);
      sum.push_back(before + beside), size.push_back(std::abs(before) + std::abs(beside));
    }
    for (int k = 0; k < l.top_k; ++k) {
      const std::size_t slot = at(t, l.top_k, k);
      const int e = l.expert[slot];
      std::vector<double> h;
      for (int i = 0; i < l.width; ++i)
        h.push_back(std::max(0.0, product(3 * e, i, in, kWholeUnit)) *
                    product(3 * e + 1, i, in, kWholeUnit));
      for (int r = 0; r < l.hidden; ++r) {
        const double y =
            static_cast<double>(l.weight[slot]) * product(3 * e + 2, r, h, kWholeUnit * kWholeUnit);
        sum[static_cast<std::size_t>(r)] += y, size[static_cast<std::size_t>(r)] += std::abs(y);
      }
    }
    for (int r = 0; r < l.hidden; ++r) {
      EXPECT_LT(size[static_cast<std::size_t>(r)], 0x1p24 * kWholeUnit * kWholeUnit);
      out.push_back(static_cast<float>(sum[static_cast<std::size_t>(r)]));
    }
  }
  return out;
}

// Of whole codewords (codebooks) what units, slices and partial sums take.
inline Layer whole_layer(const Books& books, const Tiers& tiers, int hidden, int width, int group,
                         int top_k, int n_tokens, Random& random) {
  Layer l = random_layer(hidden, width, static_cast<int>(tiers.size()), top_k, n_tokens, random);
  for (const auto& t : tiers) add_expert(l, books, {t[0], t[1], t[2]}, group, random);
  make_whole(l, random);
  return l;
}

// A layer that a plan takes, one of its dimensions long. Of gate and up some kinds of codebook, of
// down others, a codebook of each (for_sums: one of 256 entries); scales of multiples of
// scale_columns, or of whole rows.
struct DrawnLayer {
  Layer layer;
  std::string text;
};
inline DrawnLayer drawn_layer(const Books& books, bool for_sums, int scale_columns,
                              Random& random) {
  const auto is_heads = [&] { return random.below(2) == 0; };
  const int n_experts = 1 + random.below(6), top_k = 1 + random.below(n_experts),
            n_tokens = 1 + random.below(5);
  std::vector<int> of_launch[2];  // tiers
  int step[2] = {4, 4};           // of columns
  for (int i = 0; i < 2; ++i) {
    std::vector<int>& tiers = of_launch[i];
    const int kinds[] = {is_heads() ? 0 : 4, 2, 1, is_heads() ? 3 : 5};
    if (for_sums) tiers.push_back(kinds[random.below(2)]);
    while (tiers.empty())
      for (const int kind : kinds)
        if (is_heads()) tiers.push_back(kind);
    for (const int tier : tiers) step[i] = std::max(step[i], kTierShapes[tier].dim);
  }
  const int most[2][2] = {{1800, 200}, {200, 1800}};
  const auto& size = most[random.below(2)];
  const int hidden = step[0] * (1 + random.below(size[0] / step[0])),
            width = step[1] * (1 + random.below(size[1] / step[1]));
  const int group = random.below(4) == 0 ? (std::max(hidden, width) + 7) / 8 * 8
                                         : scale_columns * (1 + random.below(4));
  DrawnLayer out = {random_layer(hidden, width, n_experts, top_k, n_tokens, random),
                    std::to_string(hidden) + " x " + std::to_string(width) + ", group " +
                        std::to_string(group) + ", " + std::to_string(top_k) + " of " +
                        std::to_string(n_experts) + ", " + std::to_string(n_tokens) + " tokens"};
  const auto tier = [&](int launch) {
    const std::vector<int>& tiers = of_launch[launch];
    return tiers[static_cast<std::size_t>(random.below(static_cast<int>(tiers.size())))];
  };
  for (int e = 0; e < n_experts; ++e) {
    const int gate = tier(0), up = tier(0), down = tier(1);
    add_expert(out.layer, books, {gate, up, down}, group, random);
    out.text += ", tiers " + std::to_string(gate) + std::to_string(up) + std::to_string(down);
  }
  return out;
}

}  // namespace assay::kernels
