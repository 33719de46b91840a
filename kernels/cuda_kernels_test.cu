// Products on a GPU against the reference, in three tiers: exact on small integers, within a
// derived bound, and at edges. Need a GPU; say so and skip where there is none.
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <tuple>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/project.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

// Each product passes through at most n_cols + 3 roundings (its own, the scale's and the chain's);
// 2^-24 is float's unit roundoff.
void expect_product(const HostMatrix& m, int rows, int cols, int n_tokens, bool exact,
                    Random& random, const char* what) {
  DeviceWeights memory;
  const DeviceMatrix d = m.upload(memory);
  const std::vector<float> x =
      random.floats(static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(cols), exact);
  const DeviceArray<float> dx(x);
  const auto dy = DeviceArray<float>(std::vector<float>(
      static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(rows), std::nanf("")));
  project_cuda(d, dx.data(), cols, n_tokens, dy.data(), rows, false, nullptr);
  const std::vector<float> y = dy.host();
  double worst = 0;
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < rows; ++r) {
      double sum = 0, sum_abs = 0;
      for (int c = 0; c < cols; ++c) {
        const double p =
            m.at(r, c) * static_cast<double>(x[static_cast<std::size_t>(t * cols + c)]);
        sum += p;
        sum_abs += std::abs(p);
      }
      const double delta =
          std::abs(static_cast<double>(y[static_cast<std::size_t>(t * rows + r)]) - sum);
      const double bound = exact ? 0 : (cols + 3) * 0x1p-24 * sum_abs;
      ASSERT_LE(delta, bound) << what << ": token " << t << ", row " << r;
      if (bound > 0) worst = std::max(worst, delta / bound);
    }
  std::printf("%-8s %4d x %4d, %d tokens: worst error %.2g of its bound\n", what, rows, cols,
              n_tokens, worst);
}

TEST_F(Cuda, ProductsOfEveryKindOfMatrixAreExactOnIntegers) {
  Random random(1);
  for (const int n_tokens : {1, 2, 3, 8, 9}) {
    expect_product(dense(WeightType::kBf16, 130, 264, true, random), 130, 264, n_tokens, true,
                   random, "bf16");
    expect_product(dense(WeightType::kF16, 5, 320, true, random), 5, 320, n_tokens, true, random,
                   "f16");
    expect_product(dense(WeightType::kF32, 7, 96, true, random), 7, 96, n_tokens, true, random,
                   "f32");
    expect_product(vq(8, 256, 96, 320, 64, true, random), 96, 320, n_tokens, true, random,
                   "vq 8x256");
    expect_product(vq(4, 4096, 33, 96, 96, true, random), 33, 96, n_tokens, true, random,
                   "vq 4x4096");
    expect_product(gptq(4, 64, 320, 32, true, random), 64, 320, n_tokens, true, random, "gptq4");
    expect_product(gptq(8, 40, 128, 128, true, random), 40, 128, n_tokens, true, random, "gptq8");
  }
}

TEST_F(Cuda, ProductsOfEveryKindOfMatrixStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (const int n_tokens : {2, 4, 8})
    expect_product(dense(WeightType::kBf16, 257, 6144, false, random), 257, 6144, n_tokens, false,
                   random, "bf16");
  // Rows by 16 bytes, split over warps or not, and rows that are no multiple of them.
  expect_product(dense(WeightType::kF32, 256, 6144, false, random), 256, 6144, 2, false, random,
                 "f32");
  expect_product(dense(WeightType::kF32, 31, 101, false, random), 31, 101, 2, false, random, "f32");
  expect_product(dense(WeightType::kF16, 257, 2048, false, random), 257, 2048, 2, false, random,
                 "f16");
  expect_product(dense(WeightType::kF16, 31, 100, false, random), 31, 100, 3, false, random, "f16");
  expect_product(dense(WeightType::kF32, 31, 100, false, random), 31, 100, 5, false, random, "f32");
  for (const auto& [dim, codes] : {std::pair{8, 256}, {8, 4096}, {4, 256}, {4, 4096}}) {
    expect_product(vq(dim, codes, 64, 2048, 128, false, random), 64, 2048, 2, false, random, "vq");
    expect_product(vq(dim, codes, 33, 40, 24, false, random), 33, 40, 1, false, random, "vq");
  }
  expect_product(gptq(4, 96, 2048, 128, false, random), 96, 2048, 2, false, random, "gptq4");
  expect_product(gptq(8, 96, 320, 32, false, random), 96, 320, 3, false, random, "gptq8");
  for (const int n_tokens : {2, 4, 8})
    expect_product(fp8(130, 260, 128, random), 130, 260, n_tokens, false, random, "fp8");
}

TEST_F(Cuda, ATokensBitsDoNotDependOnItsBatch) {
  Random random(3);
  DeviceWeights memory;
  const HostMatrix m = vq(8, 256, 96, 320, 64, false, random);
  const DeviceMatrix d = m.upload(memory);
  const std::vector<float> x = random.floats(5 * 320);
  const DeviceArray<float> dx(x);
  const auto many = poisoned(5 * 96), one = poisoned(96);
  project_cuda(d, dx.data(), 320, 5, many.data(), 96, false, nullptr);
  const std::vector<float> all = many.host();
  for (int t = 0; t < 5; ++t) {
    project_cuda(d, dx.data() + t * 320, 320, 1, one.data(), 96, false, nullptr);
    EXPECT_EQ(one.host(), std::vector<float>(all.begin() + t * 96, all.begin() + (t + 1) * 96));
  }
}

// Products of one x by one call and each alone: the same bits, and between rows of y, of which each
// matrix has its own stride, nothing is written.
void expect_together_as_alone(const std::vector<HostMatrix>& host, int n_cols, int n_tokens,
                              Random& random) {
  DeviceWeights memory;
  const auto n = static_cast<std::size_t>(n_tokens);
  const DeviceArray<float> x(random.floats(n * static_cast<std::size_t>(n_cols)));
  std::vector<DeviceMatrix> m;
  std::vector<DeviceArray<float>> y;
  std::vector<DeviceProduct> products;
  m.reserve(host.size());
  for (const HostMatrix& h : host) {
    m.push_back(h.upload(memory));
    const int stride = m.back().n_rows + static_cast<int>(m.size());
    y.push_back(poisoned(n * static_cast<std::size_t>(stride)));
    products.push_back({&m.back(), y.back().data(), stride});
  }
  project_cuda(products, x.data(), n_cols, n_tokens, nullptr);
  for (std::size_t i = 0; i < m.size(); ++i) {
    const int n_rows = m[i].n_rows, stride = products[i].y_stride;
    const auto alone = poisoned(n * static_cast<std::size_t>(n_rows));
    project_cuda(m[i], x.data(), n_cols, n_tokens, alone.data(), n_rows, false, nullptr);
    const std::vector<float> expected = alone.host(), got = y[i].host();
    for (int t = 0; t < n_tokens; ++t)
      for (int r = 0; r < stride; ++r) {
        const float v = got[static_cast<std::size_t>(t * stride + r)];
        if (r < n_rows)
          ASSERT_EQ(v, expected[static_cast<std::size_t>(t * n_rows + r)])
              << "matrix " << i << ", token " << t << ", row " << r;
        else
          ASSERT_TRUE(std::isnan(v)) << "matrix " << i << ", token " << t << ", row " << r;
      }
  }
}

// Of one row to eight blocks and of one warp to eight: 16384 rows are enough for one.
TEST_F(Cuda, MatricesMultipliedTogetherHaveTheBitsTheyHaveAlone) {
  Random random(5);
  const auto bf16 = [&](int n_rows, int n_cols) {
    return dense(WeightType::kBf16, n_rows, n_cols, false, random);
  };
  for (const int n_tokens : {1, 3, 9}) {
    expect_together_as_alone({bf16(130, 6144), bf16(576, 6144)}, 6144, n_tokens, random);
    expect_together_as_alone({bf16(1, 1536), bf16(16384, 1536), bf16(31, 1536), bf16(5000, 1536)},
                             1536, n_tokens, random);
    expect_together_as_alone({bf16(3, 101), bf16(9, 101)}, 101, n_tokens, random);
  }
}

// Those in units of one shape share a launch, and those that go by the row in one form, in whatever
// order they come.
TEST_F(Cuda, SoHaveMatricesOfSeveralKinds) {
  Random random(6);
  constexpr int kCols = 1536;
  for (const int n_tokens : {1, 5, 9}) {
    expect_together_as_alone(
        {gptq(8, 200, kCols, 128, false, random),
         dense(WeightType::kBf16, 130, kCols, false, random),
         gptq(8, 70, kCols, 128, false, random), dense(WeightType::kF32, 32, kCols, false, random)},
        kCols, n_tokens, random);
    expect_together_as_alone(
        {fp8(130, kCols, 128, random), gptq(4, 33, kCols, 64, false, random),
         gptq(8, 48, kCols, 64, false, random), gptq(4, 17, kCols, 128, false, random)},
        kCols, n_tokens, random);
    expect_together_as_alone(
        {fp8(130, kCols, 128, random), dense(WeightType::kBf16, 65, kCols, false, random),
         fp8(60, kCols, 128, random), dense(WeightType::kBf16, 3, kCols, false, random)},
        kCols, n_tokens, random);
    // By the weight: kinds may differ.
    expect_together_as_alone({vq(4, 256, 33, 1560, 24, false, random), fp8(40, 1560, 24, random),
                              gptq(4, 21, 1560, 24, false, random)},
                             1560, n_tokens, random);
  }
}

}  // namespace
}  // namespace assay::kernels
