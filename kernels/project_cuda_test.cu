// The GPU projection against the reference. Needs a GPU; says so and skips where there is none.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/project.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

template <class T>
struct DeviceArray {
  explicit DeviceArray(const std::vector<T>& host) : n(host.size()) {
    CUDA_CHECK(cudaMalloc(&data, n * sizeof(T)));
    CUDA_CHECK(cudaMemcpy(data, host.data(), n * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> out(n);
    CUDA_CHECK(cudaMemcpy(out.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
  T* data = nullptr;
  std::size_t n;
};

#define SKIP_WITHOUT_GPU()                                             \
  int n_devices = 0;                                                   \
  if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) \
  GTEST_SKIP() << "no CUDA device here: this test shows nothing; run it on a GPU machine"

struct Case {
  std::vector<std::uint16_t> w;
  std::vector<float> x, y, expected, bound;
};

Case run(int n_rows, int n_cols, int n_tokens, bool integers, unsigned seed) {
  std::mt19937 rng(seed);
  Case c;
  std::uniform_int_distribution<int> small(-8, 8);
  std::normal_distribution<float> normal;
  for (int i = 0; i < n_rows * n_cols; ++i) {
    const float v = integers ? static_cast<float>(small(rng)) : normal(rng);
    c.w.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v) >> 16));
  }
  for (int i = 0; i < n_tokens * n_cols; ++i)
    c.x.push_back(integers ? static_cast<float>(small(rng)) : normal(rng));
  c.expected.resize(static_cast<std::size_t>(n_tokens) * n_rows);
  const WeightMatrix w{c.w.data(), WeightType::kBf16, n_rows, n_cols};
  project_reference(w, c.x.data(), n_tokens, n_cols, c.expected.data(), n_rows, false);
  // Each product passes through at most n_cols roundings; 2^-24 is float's unit roundoff. Derived,
  // not tuned.
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < n_rows; ++r) {
      double sum_abs = 0;
      for (int k = 0; k < n_cols; ++k)
        sum_abs +=
            std::abs(static_cast<double>(weight_at(w, static_cast<std::int64_t>(r) * n_cols + k)) *
                     c.x[t * n_cols + k]);
      c.bound.push_back(static_cast<float>((n_cols + 1) * 0x1p-24 * sum_abs));
    }
  const DeviceArray<std::uint16_t> dw(c.w);
  const DeviceArray<float> dx(c.x);
  DeviceArray<float> dy(std::vector<float>(c.expected.size(), std::nanf("")));  // poisoned
  project_bf16_cuda(dw.data, n_rows, n_cols, dx.data, n_tokens, dy.data, nullptr);
  CUDA_CHECK(cudaDeviceSynchronize());
  c.y = dy.host();
  return c;
}

TEST(ProjectCuda, IsExactOnIntegers) {
  SKIP_WITHOUT_GPU();
  for (const auto& [r, k, t] : {std::tuple{1, 8, 1}, {5, 320, 3}, {130, 264, 2}, {2048, 6144, 1}}) {
    const Case c = run(r, k, t, true, 1);
    EXPECT_EQ(c.y, c.expected) << r << " x " << k << ", " << t;
  }
}

TEST(ProjectCuda, StaysWithinTheRoundingBound) {
  SKIP_WITHOUT_GPU();
  for (const auto& [r, k, t] : {std::tuple{7, 320, 4}, {2048, 6144, 1}, {6144, 2048, 2}}) {
    const Case c = run(r, k, t, false, 2);
    double worst = 0;
    for (std::size_t i = 0; i < c.y.size(); ++i) {
      const double delta = std::abs(static_cast<double>(c.y[i]) - c.expected[i]);
      worst = std::max(worst, delta / c.bound[i]);
      ASSERT_LE(delta, c.bound[i]) << "coordinate " << i << " of " << r << " x " << k;
    }
    std::printf("%d x %d, %d tokens: worst error is %.2g of the bound\n", r, k, t, worst);
  }
}

TEST(ProjectCuda, ATokensBitsDoNotDependOnItsBatch) {
  SKIP_WITHOUT_GPU();
  const Case many = run(96, 320, 5, false, 3);
  const DeviceArray<std::uint16_t> dw(many.w);
  for (int t = 0; t < 5; ++t) {
    const DeviceArray<float> dx(
        std::vector<float>(many.x.begin() + t * 320, many.x.begin() + (t + 1) * 320));
    DeviceArray<float> dy(std::vector<float>(96, 0.0f));
    project_bf16_cuda(dw.data, 96, 320, dx.data, 1, dy.data, nullptr);
    CUDA_CHECK(cudaDeviceSynchronize());
    EXPECT_EQ(dy.host(),
              std::vector<float>(many.y.begin() + t * 96, many.y.begin() + (t + 1) * 96));
  }
}

}  // namespace
}  // namespace assay::kernels
