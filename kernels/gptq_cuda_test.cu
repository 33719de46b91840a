// GPTQ products on tensor cores against sums in double precision: exact on integers, within the
// bound that gptq_cuda.h derives, at edges, and the same bits whatever the batch. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/gptq_cuda.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kSmallBlock = std::size_t{99} << 10;  // what sm_120 has

std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

struct Shape {
  int bits, n_rows, n_cols, group;
};
HostMatrix random_matrix(const Shape& s, bool integers, Random& random) {
  return gptq(s.bits, s.n_rows, s.n_cols, s.group, integers, random);
}

// Σ w x of one row, how large its terms are together, and gptq_cuda.h's bound of how far a result
// may be from it.
struct Expected {
  double sum = 0, size = 0, bound = 0;
};
Expected expected_of(const HostMatrix& m, int row, const float* x) {
  constexpr int kMostWarps = 16, kLeastWarps = 8;
  const ScaledMatrix& w = m.scaled;
  Expected e;
  double small = 0;
  for (int g = 0; g < w.n_groups(); ++g) {
    double largest = 0, weights = 0;
    for (int c = g * w.group; c < (g + 1) * w.group; ++c) {
      const double v = static_cast<double>(x[c]), weight = m.at(row, c);
      e.sum += weight * v;
      e.size += std::abs(weight * v);
      largest = std::max(largest, std::abs(v));
      weights += std::abs(weight);
    }
    small += largest * weights;
  }
  const int roundings = 3 + (w.n_groups() + kLeastWarps - 1) / kLeastWarps + kMostWarps;
  e.bound = (0x1p-22 + 17.0 * w.group / 16 * 0x1p-23 + roundings * 0x1p-24) * e.size +
            0x1p-39 * small + 0x1p-148;
  return e;
}

// n_tokens rows of x; between the end of one and the next, and around y's, are NaNs.
struct Product {
  int n_rows, n_cols, n_tokens, x_stride, y_stride;
  DeviceArray<float> x, y;

  Product(const Shape& s, const std::vector<float>& values, int n, int odd, float fill)
      : n_rows(s.n_rows),
        n_cols(s.n_cols),
        n_tokens(n),
        x_stride(s.n_cols + 4),
        y_stride(s.n_rows + odd),
        y(std::vector<float>(area(n, y_stride), fill)) {
    std::vector<float> rows(area(n, x_stride), std::nanf(""));
    for (int t = 0; t < n; ++t)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(area(t, n_cols)), n_cols,
                  rows.begin() + static_cast<std::ptrdiff_t>(area(t, x_stride)));
    x = DeviceArray<float>(rows);
  }
  std::vector<float> run(const DeviceMatrix& m, bool accumulate, std::size_t shared_bytes) const {
    const DeviceProduct product[] = {{&m, y.data(), y_stride}};
    gptq_cuda({.products = product,
               .x = x.data(),
               .x_stride = x_stride,
               .n_tokens = n_tokens,
               .accumulate = accumulate,
               .shared_bytes = shared_bytes},
              nullptr);
    return y.host();
  }
};

void expect_product(const Shape& s, int n_tokens, bool exact, Random& random,
                    std::size_t shared_bytes = max_shared_bytes()) {
  DeviceWeights memory;
  const HostMatrix host = random_matrix(s, exact, random);
  const DeviceMatrix m = host.upload(memory);
  ASSERT_TRUE(m.in_units());
  ASSERT_TRUE(is_for_gptq_cuda(m, shared_bytes, false));
  const std::vector<float> x = random.floats(area(n_tokens, s.n_cols), exact);
  const Product p(s, x, n_tokens, random.below(4), std::nanf("")),
      added(s, x, n_tokens, random.below(4), 3);
  const std::vector<float> y = p.run(m, false, shared_bytes),
                           sum = added.run(m, true, shared_bytes);
  double worst = 0;
  for (int t = 0; t < n_tokens; ++t) {
    for (int r = 0; r < s.n_rows; ++r) {
      const Expected e = expected_of(host, r, x.data() + area(t, s.n_cols));
      const float got = y[area(t, p.y_stride) + static_cast<std::size_t>(r)];
      const double delta = std::abs(static_cast<double>(got) - e.sum);
      ASSERT_LE(delta, exact ? 0 : e.bound) << "token " << t << ", row " << r;
      if (e.bound > 0) worst = std::max(worst, delta / e.bound);
      ASSERT_EQ(sum[area(t, added.y_stride) + static_cast<std::size_t>(r)], 3 + got);
    }
    for (int r = s.n_rows; r < p.y_stride; ++r)
      ASSERT_TRUE(std::isnan(y[area(t, p.y_stride) + static_cast<std::size_t>(r)])) << t;
    for (int r = s.n_rows; r < added.y_stride; ++r)
      ASSERT_EQ(sum[area(t, added.y_stride) + static_cast<std::size_t>(r)], 3.0f) << t;
  }
  std::printf("gptq%d %5d x %5d, group %3d, %d tokens: worst error %.2g of its bound\n", s.bits,
              s.n_rows, s.n_cols, s.group, n_tokens, worst);
}

TEST_F(Cuda, GptqProductsAreExactOnIntegers) {
  Random random(61);
  for (const int bits : {4, 8})
    for (const int group : {32, 64, 128})
      for (const int n_tokens : {1, 3, 4, 9})
        expect_product({bits, 70, 5 * group, group}, n_tokens, true, random);
}

// Twenty bits of x count, as many as its two halves hold: one of a group is large, the others zero.
TEST_F(Cuda, GptqProductsKeepTwentyBitsOfX) {
  Random random(62);
  const Shape s = {8, 33, 256, 64};
  DeviceWeights memory;
  const HostMatrix host = random_matrix(s, true, random);
  const DeviceMatrix m = host.upload(memory);
  std::vector<float> x(static_cast<std::size_t>(s.n_cols));
  for (const int c : {5, 77, 130, 255}) {
    std::fill(x.begin(), x.end(), 0.0f);
    x[static_cast<std::size_t>(c)] = 0x1p14f + 1 + 0x1p-5f;
    const std::vector<float> y =
        Product(s, x, 1, 0, std::nanf("")).run(m, false, max_shared_bytes());
    for (int r = 0; r < s.n_rows; ++r) {
      const double high = host.at(r, c) * (0x1p14 + 1), low = host.at(r, c) * 0x1p-5;
      EXPECT_EQ(y[static_cast<std::size_t>(r)], static_cast<float>(high + low)) << r << ", " << c;
    }
  }
}

TEST_F(Cuda, GptqProductsStayWithinTheirBound) {
  Random random(fresh_seed());
  for (const int bits : {4, 8}) {
    expect_product({bits, 100, 6144, 128}, 2, false, random);
    expect_product({bits, 48, 16384, 128}, 3, false, random);  // two tokens a pass
    expect_product({bits, 576, 2048, 64}, 4, false, random);
    expect_product({bits, 320, 768, 32}, 9, false, random);
  }
}

TEST_F(Cuda, GptqProductsOfOddShapesStayWithinTheirBound) {
  Random random(fresh_seed());
  for (const int bits : {4, 8})
    for (const int n_rows : {1, 15, 16, 17, 192})
      for (const int n_cols : {32, 96, 320})
        expect_product({bits, n_rows, n_cols, 32}, 1 + random.below(9), false, random);
  for (int i = 0; i < 20; ++i) {  // and any shapes
    const int group = 32 << random.below(3);
    expect_product(
        {4 + 4 * random.below(2), 1 + random.below(400), group * (1 + random.below(40)), group},
        1 + random.below(9), false, random);
  }
}

// More tiles of rows than a block's sums are kept for: 132 blocks of 20 tiles.
TEST_F(Cuda, GptqProductsOfManyRowsStayWithinTheirBound) {
  Random random(fresh_seed());
  for (const int bits : {4, 8})
    for (const int n_tokens : {1, 2, 4})
      expect_product({bits, 42001, 64, 32}, n_tokens, false, random);
}

TEST_F(Cuda, GptqProductsFitSmallBlocks) {
  Random random(fresh_seed());
  for (const int bits : {4, 8}) {
    expect_product({bits, 40, 16384, 128}, 2, false, random, kSmallBlock);
    expect_product({bits, 100, 6144, 128}, 5, false, random, kSmallBlock);
    expect_product({bits, 9000, 320, 32}, 4, false, random, kSmallBlock);
  }
}

// 17 tokens are five passes of four and less; and one alone.
TEST_F(Cuda, AGptqProductsBitsDoNotDependOnTheBatch) {
  Random random(67);
  constexpr int kTokens = 17;
  for (const Shape& s : {Shape{4, 130, 6144, 128}, {8, 3000, 320, 32}, {8, 50, 16384, 128}}) {
    DeviceWeights memory;
    const DeviceMatrix m = random_matrix(s, false, random).upload(memory);
    const std::vector<float> x = random.floats(area(kTokens, s.n_cols));
    const std::vector<float> all =
        Product(s, x, kTokens, 0, std::nanf("")).run(m, false, max_shared_bytes());
    for (const auto& [first, n] : {std::pair{0, 1}, {3, 1}, {16, 1}, {5, 2}, {7, 3}, {1, 9}}) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(area(first, s.n_cols));
      const std::vector<float> some(begin, begin + static_cast<std::ptrdiff_t>(area(n, s.n_cols)));
      const std::vector<float> y =
          Product(s, some, n, 0, std::nanf("")).run(m, false, max_shared_bytes());
      EXPECT_TRUE(std::equal(y.begin(), y.end(),
                             all.begin() + static_cast<std::ptrdiff_t>(area(first, s.n_rows))))
          << s.n_cols << " columns, " << n << " tokens from " << first;
    }
  }
}

TEST_F(Cuda, GptqProductsTakeAnyFiniteX) {
  Random random(fresh_seed());
  for (const int bits : {4, 8}) {
    const Shape s = {bits, 40, 384, 128};
    DeviceWeights memory;
    const HostMatrix host = random_matrix(s, false, random);
    const DeviceMatrix m = host.upload(memory);
    for (const float size : {0.0f, 1e30f, 1e-30f, 0x1p-130f, 0x1p-140f}) {
      std::vector<float> x = random.floats(static_cast<std::size_t>(s.n_cols));
      for (float& v : x) v *= size;
      const std::vector<float> y =
          Product(s, x, 1, 0, std::nanf("")).run(m, false, max_shared_bytes());
      for (int r = 0; r < s.n_rows; ++r) {
        const Expected e = expected_of(host, r, x.data());
        ASSERT_LE(std::abs(static_cast<double>(y[static_cast<std::size_t>(r)]) - e.sum), e.bound)
            << size << ", row " << r;
      }
    }
  }
}

TEST_F(Cuda, WhatIsNotFiniteInXShowsInItsRowAlone) {
  Random random(69);
  const Shape s = {8, 40, 384, 64};
  DeviceWeights memory;
  const HostMatrix host = random_matrix(s, false, random);
  const DeviceMatrix m = host.upload(memory);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()})
    for (const int at : {0, 100, 383}) {
      std::vector<float> x = random.floats(area(3, s.n_cols));
      x[area(1, s.n_cols) + static_cast<std::size_t>(at)] = bad;
      const std::vector<float> y = Product(s, x, 3, 0, 0).run(m, false, max_shared_bytes());
      for (int t = 0; t < 3; ++t)
        for (int r = 0; r < s.n_rows; ++r)
          EXPECT_EQ(std::isfinite(y[area(t, s.n_rows) + static_cast<std::size_t>(r)]), t != 1)
              << bad << " at " << at << ": token " << t << ", row " << r;
    }
}

// Matrices of other sizes beside each other have the bits that they have alone.
TEST_F(Cuda, GptqMatricesMultipliedTogetherHaveTheBitsTheyHaveAlone) {
  Random random(70);
  constexpr int kTokens = 5, kRows[] = {2048, 576, 1, 3000};
  for (const int bits : {4, 8}) {
    DeviceWeights memory;
    const std::vector<float> x = random.floats(area(kTokens, 640));
    const DeviceArray<float> dx(x);
    std::vector<DeviceMatrix> m;
    std::vector<DeviceArray<float>> y;
    std::vector<DeviceProduct> products;
    for (const int n_rows : kRows) {
      m.push_back(random_matrix({bits, n_rows, 640, 128}, false, random).upload(memory));
      y.push_back(poisoned(area(kTokens, n_rows)));
    }
    for (std::size_t i = 0; i < m.size(); ++i)
      products.push_back({&m[i], y[i].data(), m[i].n_rows});
    gptq_cuda({.products = products,
               .x = dx.data(),
               .x_stride = 640,
               .n_tokens = kTokens,
               .shared_bytes = max_shared_bytes()},
              nullptr);
    for (std::size_t i = 0; i < m.size(); ++i) {
      const auto alone = poisoned(area(kTokens, m[i].n_rows));
      project_cuda(m[i], dx.data(), 640, kTokens, alone.data(), m[i].n_rows, false, nullptr);
      EXPECT_EQ(y[i].host(), alone.host()) << m[i].n_rows << " rows";
    }
  }
}

// silu is nowhere steeper than 1.1; its exponential, sum and quotient and the product are eight
// float32 roundings.
void expect_swiglu(const Shape& gate_shape, const Shape& up_shape, int n_tokens, Random& random) {
  const int n_rows = gate_shape.n_rows, n_cols = gate_shape.n_cols;
  DeviceWeights memory;
  const HostMatrix gate = random_matrix(gate_shape, false, random),
                   up = random_matrix(up_shape, false, random);
  const DeviceMatrix g = gate.upload(memory), u = up.upload(memory);
  std::vector<float> x = random.floats(area(n_tokens, n_cols));
  for (float& v : x) v /= 64;
  const DeviceArray<float> dx(x);
  const auto h = poisoned(area(n_tokens, n_rows));
  swiglu_cuda(g, u, dx.data(), n_cols, n_tokens, h.data(), nullptr);
  const std::vector<float> got = h.host();
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < n_rows; ++r) {
      const float* row = x.data() + area(t, n_cols);
      Expected a = expected_of(gate, r, row), b = expected_of(up, r, row);
      const double chain = (n_cols + 3) * 0x1p-24;  // where they are multiplied by the row
      a.bound = std::max(a.bound, chain * a.size), b.bound = std::max(b.bound, chain * b.size);
      const double s = a.sum / (1 + std::exp(-a.sum));
      const double bound = 1.1 * a.bound * (std::abs(b.sum) + b.bound) + std::abs(s) * b.bound +
                           8 * 0x1p-24 * (std::abs(s * b.sum) + a.bound);
      ASSERT_LE(std::abs(static_cast<double>(got[area(t, n_rows) + static_cast<std::size_t>(r)]) -
                         s * b.sum),
                bound)
          << "token " << t << ", row " << r;
    }
}

TEST_F(Cuda, GptqGatesAndUpsStayWithinTheirBound) {
  Random random(fresh_seed());
  for (const int bits : {4, 8})
    for (const int n_tokens : {1, 3, 6}) {
      const Shape s = {bits, 96, 320, 32}, wide = {bits, 2047, 384, 128};
      expect_swiglu(s, s, n_tokens, random);
      expect_swiglu(wide, wide, n_tokens, random);
      // Not alike, so by the row.
      expect_swiglu({4, 96, 320, 32}, {8, 96, 320, 64}, n_tokens, random);
    }
}

// More tiles than sums are kept for, gate and up of each together.
TEST_F(Cuda, GptqGatesAndUpsOfManyRowsHaveTheBitsOfTheirProducts) {
  Random random(72);
  for (const int n_tokens : {1, 4}) {
    const Shape s = {8, 30001, 64, 32};
    DeviceWeights memory;
    const DeviceMatrix gate = random_matrix(s, false, random).upload(memory),
                       up = random_matrix(s, false, random).upload(memory);
    // Large, so that silu is its argument, or zero.
    std::vector<float> x(area(n_tokens, s.n_cols), 0.0f);
    for (int t = 0; t < n_tokens; ++t) x[area(t, s.n_cols) + static_cast<std::size_t>(t)] = 1e6f;
    const DeviceArray<float> dx(x);
    const auto h = poisoned(area(n_tokens, s.n_rows)), g = poisoned(area(n_tokens, s.n_rows)),
               u = poisoned(area(n_tokens, s.n_rows));
    swiglu_cuda(gate, up, dx.data(), s.n_cols, n_tokens, h.data(), nullptr);
    project_cuda(gate, dx.data(), s.n_cols, n_tokens, g.data(), s.n_rows, false, nullptr);
    project_cuda(up, dx.data(), s.n_cols, n_tokens, u.data(), s.n_rows, false, nullptr);
    const std::vector<float> got = h.host(), a = g.host(), b = u.host();
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::abs(a[i]) < 128 && a[i] != 0) continue;  // silu is neither
      ASSERT_EQ(got[i], (a[i] > 0 ? a[i] : 0) * b[i]) << i;
    }
  }
}

TEST_F(Cuda, AGptqProductIsRecordedAndRunsAgain) {
  Random random(73);
  const Shape s = {4, 300, 512, 128};
  DeviceWeights memory;
  const DeviceMatrix m = random_matrix(s, false, random).upload(memory);
  const std::vector<float> x = random.floats(static_cast<std::size_t>(s.n_cols));
  const DeviceArray<float> dx(x);
  const auto y = poisoned(300), again = poisoned(300);
  project_cuda(m, dx.data(), s.n_cols, 1, y.data(), s.n_rows, false, nullptr);
  const std::vector<float> once = y.host();
  const CudaStreamOwner stream;
  RecordedGraph::begin(stream.get());
  // One after the other on the same rows: the second adds to what the first has written.
  project_cuda(m, dx.data(), s.n_cols, 1, again.data(), s.n_rows, false, stream.get());
  project_cuda(m, dx.data(), s.n_cols, 1, again.data(), s.n_rows, true, stream.get());
  const std::optional<RecordedGraph> graph = RecordedGraph::end(stream.get());
  ASSERT_TRUE(graph.has_value());
  for (int i = 0; i < 3; ++i) {
    graph->launch(stream.get());
    const std::vector<float> twice = again.host(300, stream.get());
    for (std::size_t r = 0; r < once.size(); ++r) ASSERT_EQ(twice[r], 2 * once[r]) << r;
  }
}

}  // namespace
}  // namespace assay::kernels
