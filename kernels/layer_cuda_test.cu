// What stands between projections on a GPU, against the reference: exact where float32 holds every
// step, within a derived bound, and at edges. Need a GPU; say so and skip where there is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/layer_cuda.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

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

// Rows of n_heads vectors of `width`, the first `dim` values of which are rotated.
struct Rotations {
  int dim, n_heads, width;
  bool interleaved;
  std::vector<float> cosine, sine;
  Rotations(int dim_, int n_heads_, int width_, bool interleaved_, int n_rows)
      : dim(dim_),
        n_heads(n_heads_),
        width(width_),
        interleaved(interleaved_),
        cosine(area(n_rows, dim / 2)),
        sine(cosine.size()) {
    const RopeTable table(1e6, dim);
    for (int r = 0; r < n_rows; ++r)
      table.angles(r * 1000, &cosine[area(r, dim / 2)], &sine[area(r, dim / 2)]);
  }
  std::vector<float> by_reference(std::vector<float> x) const {
    for (std::size_t v = 0; v < x.size() / static_cast<std::size_t>(width); ++v) {
      const int row = static_cast<int>(v) / n_heads;
      rope_reference(&cosine[area(row, dim / 2)], &sine[area(row, dim / 2)], dim, interleaved,
                     &x[v * static_cast<std::size_t>(width)]);
    }
    return x;
  }
  std::vector<float> by_cuda(const std::vector<float>& x, bool in_place) const {
    const DeviceArray<float> c(cosine), s(sine), from(x);
    const auto to = poisoned(x.size());
    const int n_rows = static_cast<int>(x.size()) / (n_heads * width);
    float* out = in_place ? from.data() : to.data();
    rope_cuda({c.data(), s.data(), dim, interleaved}, {from.data(), n_heads * width, width},
              {out, n_heads * width, width}, n_heads, n_rows, nullptr);
    return in_place ? from.host() : to.host();
  }
};

TEST_F(Cuda, RotationsAgreeAndTouchNothingElse) {
  Random random(fresh_seed());
  for (const auto& [dim, heads, width] :
       {std::tuple{32, 3, 40}, {64, 64, 65}, {64, 1, 64}, {256, 7, 300}, {2, 5, 3}})
    for (const bool interleaved : {true, false}) {
      constexpr int kRows = 4;
      const Rotations r(dim, heads, width, interleaved, kRows);
      const std::vector<float> x = random.floats(area(kRows, heads * width)),
                               expected = r.by_reference(x), y = r.by_cuda(x, false);
      // Two products and their sum, of values below 16, and the reference's: four roundings.
      const auto near = [&](float got, std::size_t i) {
        return std::abs(static_cast<double>(got) - static_cast<double>(expected[i])) <=
               4 * 0x1p-24 * 16;
      };
      for (std::size_t i = 0; i < y.size(); ++i)
        if (static_cast<int>(i % static_cast<std::size_t>(width)) < dim)
          ASSERT_TRUE(near(y[i], i)) << i << ": " << y[i] << ", expected " << expected[i];
        else
          ASSERT_TRUE(std::isnan(y[i])) << i;
      const std::vector<float> in_place = r.by_cuda(x, true);
      for (std::size_t i = 0; i < y.size(); ++i)
        ASSERT_EQ(in_place[i],
                  static_cast<int>(i % static_cast<std::size_t>(width)) < dim ? y[i] : x[i])
            << i;
    }
}

// Index keys of rows, as their cache has them: (positions, dim), row r at position 2 r + 1.
struct IndexKeys {
  int dim, rope;
  std::vector<float> weight, bias;
  float eps = 1e-6f;
  std::vector<float> by_cuda(const std::vector<float>& in, const Rotations& angles) const {
    const int n_rows = static_cast<int>(in.size()) / dim;
    const auto cache = poisoned(area(2 * n_rows + 1, dim));
    std::vector<int> position;
    for (int r = 0; r < n_rows; ++r) position.push_back(2 * r + 1);
    const DeviceArray<float> x(in), w(weight), b(bias), c(angles.cosine), s(angles.sine);
    const DeviceArray<float*> caches(
        std::vector<float*>(static_cast<std::size_t>(n_rows), cache.data()));
    const DeviceArray<int> at(position);
    append_index_cuda({.in = x.data(),
                       .norm_weight = w.data(),
                       .norm_bias = b.data(),
                       .eps = eps,
                       .dim = dim,
                       .n_rows = n_rows,
                       .cache = caches.data(),
                       .position = at.data()},
                      {c.data(), s.data(), rope, angles.interleaved}, nullptr);
    return cache.host();
  }
  std::vector<float> by_reference(const std::vector<float>& in, const Rotations& angles) const {
    std::vector<float> out(in.size());
    for (std::size_t at = 0; at < in.size(); at += static_cast<std::size_t>(dim))
      layer_norm_reference(&in[at], weight.data(), bias.data(), eps, dim, &out[at]);
    return angles.by_reference(out);
  }
  // What float32 may make of any value of row x. The mean errs by 13 roundings of the mean size (2
  // of a piece, 10 of the trees, a division). A value's distance from it, in deviations, errs by
  // that, by as much again through the deviation, and by 16 roundings of its own: the distance,
  // half of the 16 of the deviation's square, root, reciprocal, weight and product, bias. A
  // rotation takes two such values and rounds four times, the reference as often.
  double bound(const float* x) const {
    double mean = 0, size = 0, variance = 0, worst = 0, largest = 0;
    for (int i = 0; i < dim; ++i) {
      mean += static_cast<double>(x[i]) / dim;
      size += std::abs(static_cast<double>(x[i])) / dim;
    }
    const auto distance = [&](int i) { return std::abs(static_cast<double>(x[i]) - mean); };
    for (int i = 0; i < dim; ++i) variance += distance(i) * distance(i) / dim;
    const double deviation = std::sqrt(variance + static_cast<double>(eps));
    for (int i = 0; i < dim; ++i) {
      const double w = std::abs(static_cast<double>(weight[static_cast<std::size_t>(i)])),
                   b = std::abs(static_cast<double>(bias[static_cast<std::size_t>(i)])),
                   z = distance(i) / deviation;
      worst = std::max(worst, w * (13 * size / deviation * (1 + z) + 16 * z) + b);
      largest = std::max(largest, w * z + b);
    }
    return 0x1p-24 * (2 * worst + 8 * largest);
  }
};

// At position 0 nothing is turned; ±2 have the mean 0 and the deviation 2.
TEST_F(Cuda, IndexKeysAreExactWhereTheRootIs) {
  for (const auto& [dim, rope] : {std::pair{128, 64}, {64, 64}, {30, 6}, {1024, 2}, {2, 2}})
    for (const bool interleaved : {true, false}) {
      IndexKeys keys = {dim, rope, {}, {}, 0};
      std::vector<float> in;
      for (int i = 0; i < dim; ++i) {
        keys.weight.push_back(static_cast<float>(i % 17 - 8));
        keys.bias.push_back(static_cast<float>(i % 5));
        in.push_back(i % 2 == 0 ? 2.0f : -2.0f);
      }
      const std::vector<float> got = keys.by_cuda(in, {rope, 1, dim, interleaved, 1});
      for (int i = 0; i < dim; ++i) {
        const auto at = static_cast<std::size_t>(i), n = static_cast<std::size_t>(dim);
        ASSERT_EQ(got[n + at], keys.weight[at] * (in[at] / 2) + keys.bias[at]) << i << " of " << n;
        ASSERT_TRUE(std::isnan(got[at]) && std::isnan(got[2 * n + at])) << i << " of " << n;
      }
    }
}

TEST_F(Cuda, IndexKeysAreNormedAndRotatedWithinTheirBound) {
  Random random(fresh_seed());
  for (const auto& [dim, rope] :
       {std::pair{128, 64}, {64, 32}, {128, 128}, {30, 6}, {1024, 64}, {2, 2}})
    for (const bool interleaved : {true, false}) {
      constexpr int kRows = 3;
      const Rotations angles(rope, 1, dim, interleaved, kRows);
      const IndexKeys keys = {dim, rope, random.floats(static_cast<std::size_t>(dim)),
                              random.floats(static_cast<std::size_t>(dim))};
      const std::vector<float> in = random.floats(area(kRows, dim)), got = keys.by_cuda(in, angles),
                               expected = keys.by_reference(in, angles);
      for (int r = 0; r < kRows; ++r) {
        const double bound = keys.bound(&in[area(r, dim)]);
        for (int i = 0; i < dim; ++i)
          ASSERT_NEAR(got[area(2 * r + 1, dim) + static_cast<std::size_t>(i)],
                      expected[area(r, dim) + static_cast<std::size_t>(i)], bound)
              << i << " of " << dim << ", row " << r;
      }
      for (int i = 0; i < dim; ++i)
        EXPECT_TRUE(std::isnan(got[area(2, dim) + static_cast<std::size_t>(i)])) << i;
    }
}

TEST_F(Cuda, AnIndexKeysBitsAreItsRows) {
  Random random(10);
  constexpr int kDim = 128, kRope = 64, kRows = 3;
  const IndexKeys keys = {kDim, kRope, random.floats(kDim), random.floats(kDim)};
  const Rotations angles(kRope, 1, kDim, true, 1);  // every row alone is row 0
  const std::vector<float> row = random.floats(kDim);
  std::vector<float> rows;
  for (int r = 0; r < kRows; ++r) rows.insert(rows.end(), row.begin(), row.end());
  Rotations same = angles;
  for (int r = 1; r < kRows; ++r) {
    same.cosine.insert(same.cosine.end(), angles.cosine.begin(), angles.cosine.end());
    same.sine.insert(same.sine.end(), angles.sine.begin(), angles.sine.end());
  }
  const std::vector<float> alone = keys.by_cuda(row, angles), many = keys.by_cuda(rows, same);
  for (int r = 0; r < kRows; ++r)
    EXPECT_TRUE(std::equal(alone.begin() + kDim, alone.begin() + 2 * kDim,
                           many.begin() + (2 * r + 1) * kDim))
        << r;
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
