// What stands between projections on a GPU, against the reference: exact where float32 holds every
// step, within a derived bound, and at edges. Need a GPU; say so and skip where there is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/layer_cuda.h"
#include "kernels/norm.h"

namespace assay::kernels {
namespace {

constexpr int kWidths[] = {1, 2, 31, 33, 320, 576, 2047, 2048, 2052, 6144, 8196, 16384};

std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

// Where rows lie: the first value at `first`, rows `stride` apart.
struct Layout {
  int first, stride;
};

// The norms of rows that lie like `in`, written like `out`: (n_rows, n). Nothing else is written.
std::vector<float> norms(const std::vector<float>& rows, const std::vector<float>& weight,
                         float eps, Layout in, Layout out) {
  const int n = static_cast<int>(weight.size()), n_rows = static_cast<int>(rows.size()) / n;
  std::vector<float> spread(static_cast<std::size_t>(in.first) + area(n_rows, in.stride),
                            std::nanf(""));
  for (int r = 0; r < n_rows; ++r)
    std::copy_n(&rows[area(r, n)], n,
                &spread[static_cast<std::size_t>(in.first) + area(r, in.stride)]);
  const DeviceArray<float> x(spread), w(weight);
  const auto y = poisoned(static_cast<std::size_t>(out.first) + area(n_rows, out.stride));
  rms_norm_cuda(x.data() + in.first, in.stride, w.data(), eps, n, n_rows, y.data() + out.first,
                out.stride, nullptr);
  std::vector<float> host = y.host(), got;
  for (int r = 0; r < n_rows; ++r) {
    float* row = &host[static_cast<std::size_t>(out.first) + area(r, out.stride)];
    got.insert(got.end(), row, row + n);
    std::fill_n(row, n, std::nanf(""));
  }
  EXPECT_TRUE(std::all_of(host.begin(), host.end(), [](float v) { return std::isnan(v); })) << n;
  return got;
}

// Squares of ±2 add up to 4 n exactly, and the root of their mean is 2: a value left out or counted
// twice would show in all.
TEST_F(Cuda, NormsAreExactWhereTheRootIs) {
  for (const int n : kWidths) {
    std::vector<float> x(area(3, n)), w(static_cast<std::size_t>(n)), expected(x.size());
    for (int i = 0; i < n; ++i) w[static_cast<std::size_t>(i)] = static_cast<float>(i % 17 - 8);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = i % 3 == 0 ? -2.0f : 2.0f;
      expected[i] = w[i % static_cast<std::size_t>(n)] * (x[i] / 2);
    }
    EXPECT_EQ(norms(x, w, 0, {0, n}, {0, n}), expected) << n;
    EXPECT_EQ(norms(x, w, 0, {4, n + 4}, {8, n + 8}), expected) << n << ", with gaps";
    EXPECT_EQ(norms(x, w, 0, {1, n + 3}, {3, n + 1}), expected) << n << ", nowhere aligned";
  }
}

TEST_F(Cuda, NormsStayWithinTheirBound) {
  Random random(fresh_seed());
  std::vector<int> widths(std::begin(kWidths), std::end(kWidths));
  for (int i = 0; i < 12; ++i) widths.push_back(1 + random.below(9000));
  for (const int n : widths) {
    const std::vector<float> x = random.floats(area(2, n)),
                             w = random.floats(static_cast<std::size_t>(n));
    std::vector<float> expected(x.size());
    for (int r = 0; r < 2; ++r)
      rms_norm_reference(&x[area(r, n)], w.data(), 1e-5f, n, &expected[area(r, n)]);
    const std::vector<float> y = norms(x, w, 1e-5f, {0, n}, {0, n});
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_NEAR(y[i], expected[i],
                  kRmsNormCudaBound * std::abs(static_cast<double>(expected[i])) + 1e-30)
          << i << " of " << n;
  }
}

TEST_F(Cuda, ARowsNormHasTheSameBitsWhereverItLiesAndWhateverIsBesideIt) {
  Random random(5);
  for (const int n : kWidths) {
    constexpr int kRows = 5;
    const std::vector<float> x = random.floats(area(kRows, n)),
                             w = random.floats(static_cast<std::size_t>(n));
    const std::vector<float> all = norms(x, w, 1e-5f, {0, n}, {0, n});
    EXPECT_EQ(norms(x, w, 1e-5f, {1, n + 3}, {3, n + 1}), all) << n;
    for (int r = 0; r < kRows; ++r) {
      const std::vector<float> row(x.begin() + r * n, x.begin() + (r + 1) * n),
          beside(all.begin() + r * n, all.begin() + (r + 1) * n);
      EXPECT_EQ(norms(row, w, 1e-5f, {0, n}, {0, n}), beside) << n;
      EXPECT_EQ(norms(row, w, 1e-5f, {2, n}, {1, n}), beside) << n;
    }
  }
}

TEST_F(Cuda, ANormMayReplaceItsRowAndANaNStaysInIt) {
  Random random(6);
  for (const int n : kWidths) {
    std::vector<float> x = random.floats(area(2, n)),
                       w = random.floats(static_cast<std::size_t>(n));
    const std::vector<float> expected = norms(x, w, 1e-5f, {0, n}, {0, n});
    const DeviceArray<float> rows(x), weight(w);
    rms_norm_cuda(rows.data(), n, weight.data(), 1e-5f, n, 2, rows.data(), n, nullptr);
    EXPECT_EQ(rows.host(), expected) << n;
    x[static_cast<std::size_t>(n - 1)] = std::nanf("");
    const std::vector<float> y = norms(x, w, 1e-5f, {0, n}, {0, n});
    for (int i = 0; i < n; ++i) EXPECT_TRUE(std::isnan(y[static_cast<std::size_t>(i)])) << i;
    EXPECT_TRUE(std::equal(y.begin() + n, y.end(), expected.begin() + n)) << n;
  }
}

// Copies: every kind of value that float32 holds, to the bit.
TEST_F(Cuda, EmbeddingsAreTheTablesRows) {
  Random random(7);
  constexpr int kVocab = 11;
  for (const WeightType type : {WeightType::kBf16, WeightType::kF16, WeightType::kF32})
    for (const int n : {1, 2, 8, 31, 320, 2052, 6144}) {
      const HostMatrix host = dense(type, kVocab, n, false, random);
      DeviceWeights memory;
      const DeviceMatrix table = host.upload(memory);
      const std::vector<int> tokens = {kVocab - 1, 0, 3, 3, 7};
      const int n_tokens = static_cast<int>(tokens.size());
      const DeviceArray<int> d_tokens(tokens);
      for (const int first : {0, 1}) {
        const auto out = poisoned(area(n_tokens, n) + 2);
        embed_cuda(table, d_tokens.data(), n_tokens, out.data() + first, nullptr);
        const std::vector<float> got = out.host();
        for (int t = 0; t < n_tokens; ++t)
          for (int c = 0; c < n; ++c)
            ASSERT_EQ(static_cast<double>(got[static_cast<std::size_t>(first) + area(t, n) +
                                              static_cast<std::size_t>(c)]),
                      host.at(tokens[static_cast<std::size_t>(t)], c))
                << c << " of " << n << ", token " << t;
        for (std::size_t i = 0; i < got.size(); ++i)
          if (i < static_cast<std::size_t>(first) ||
              i >= static_cast<std::size_t>(first) + area(n_tokens, n))
            EXPECT_TRUE(std::isnan(got[i])) << i << " of " << got.size();
      }
    }
}

// Added in order, 1 + 2^-24 + 2^-24 stays 1 in float32; in another order it does not.
TEST_F(Cuda, PartsAreAddedUpInTheirOrder) {
  for (const int n_parts : {1, 2, 3, 8})
    for (const std::size_t n : {std::size_t{1}, std::size_t{128}, std::size_t{1000}}) {
      std::vector<float> parts;
      for (int p = 0; p < n_parts; ++p)
        for (std::size_t i = 0; i < n; ++i)
          parts.push_back(i % 2 == 0 ? static_cast<float>(i + static_cast<std::size_t>(p))
                          : p == 0   ? 1.0f
                                     : 0x1p-24f);
      const DeviceArray<float> in(parts);
      const auto out = poisoned(n);
      sum_parts_cuda(in.data(), n_parts, n, out.data(), nullptr);
      const std::vector<float> sum = out.host();
      const auto of_parts = static_cast<std::size_t>(n_parts);
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(sum[i], i % 2 == 0
                              ? static_cast<float>(i * of_parts + of_parts * (of_parts - 1) / 2)
                              : 1.0f)
            << i << " of " << n << ", " << n_parts << " parts";
    }
}

TEST_F(Cuda, WhatIsClearedIsZeroAndNothingElse) {
  const auto values = poisoned(100);
  clear_cuda(values.data() + 10, 20, nullptr);
  const std::vector<float> host = values.host();
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(std::isnan(host[static_cast<std::size_t>(i)]), i < 10 || i >= 30) << i;
}

}  // namespace
}  // namespace assay::kernels
