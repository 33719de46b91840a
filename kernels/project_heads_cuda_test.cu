// A matrix to a head: within its bound of the exact sums, with the bits that a token has alone.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  int n_heads, n_rows, n_cols, n_tokens;
};

std::vector<float> numbers(std::size_t n, unsigned seed) {
  std::vector<float> out(n);
  for (float& v : out) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int>(seed) >> 8) * 0x1p-23f;
  }
  return out;
}

// Rows of x and y that are longer than what is used of them, as a layer has them.
class Heads {
 public:
  Heads(const Shape& s, unsigned seed)
      : s_(s),
        x_head_(s.n_cols + 4),
        y_head_(s.n_rows + 3),
        w_(numbers(static_cast<std::size_t>(s.n_heads * s.n_rows * s.n_cols), seed)),
        x_(numbers(static_cast<std::size_t>(s.n_tokens * s.n_heads * x_head_), seed + 1)) {}

  std::vector<float> run(int first_token, int n_tokens) const {
    const DeviceArray<float> w(w_), x(x_);
    auto y = poisoned(static_cast<std::size_t>(n_tokens * s_.n_heads * y_head_));
    project_heads_cuda({.w = w.data(),
                        .n_heads = s_.n_heads,
                        .n_rows = s_.n_rows,
                        .n_cols = s_.n_cols,
                        .x = x.data() + first_token * s_.n_heads * x_head_,
                        .x_token_stride = s_.n_heads * x_head_,
                        .x_head_stride = x_head_,
                        .y = y.data(),
                        .y_token_stride = s_.n_heads * y_head_,
                        .y_head_stride = y_head_,
                        .n_tokens = n_tokens},
                       nullptr);
    return y.host();
  }
  void expect_near(const std::vector<float>& y) const {
    for (int t = 0; t < s_.n_tokens; ++t)
      for (int h = 0; h < s_.n_heads; ++h)
        for (int r = 0; r < s_.n_rows; ++r) {
          double sum = 0, size = 0;
          for (int c = 0; c < s_.n_cols; ++c) {
            const double p =
                static_cast<double>(
                    w_[static_cast<std::size_t>((h * s_.n_rows + r) * s_.n_cols + c)]) *
                static_cast<double>(
                    x_[static_cast<std::size_t>((t * s_.n_heads + h) * x_head_ + c)]);
            sum += p, size += std::abs(p);
          }
          const double off = std::abs(sum - static_cast<double>(y[at(t, h, r)]));
          ASSERT_LE(off, (s_.n_cols / 32 + 8) * 0x1p-24 * size) << t << ", " << h << ", " << r;
        }
  }
  // What is no head's row stays as it was.
  void expect_rest_untouched(const std::vector<float>& y) const {
    for (int t = 0; t < s_.n_tokens; ++t)
      for (int h = 0; h < s_.n_heads; ++h)
        for (int r = s_.n_rows; r < y_head_; ++r) ASSERT_TRUE(std::isnan(y[at(t, h, r)]));
  }
  std::size_t of_token() const { return static_cast<std::size_t>(s_.n_heads * y_head_); }

 private:
  std::size_t at(int t, int h, int r) const {
    return static_cast<std::size_t>((t * s_.n_heads + h) * y_head_ + r);
  }
  const Shape s_;
  const int x_head_, y_head_;
  const std::vector<float> w_, x_;
};

TEST_F(Cuda, ProductsByHeadAreExactToTheirBoundWhateverTheWidths) {
  const unsigned seed = fresh_seed();
  Random random(seed);
  std::vector<Shape> shapes =
      sizes<Shape>({{64, 512, 192, 1},
                    {64, 256, 512, 1},
                    {6, 128, 32, 9},
                    {3, 21, 11, 3},
                    {2, 13, 700, 17},
                    {1, 1, 1, 1},
                    {5, 4, 257, 8}},
                   {{6, 128, 32, 9}, {3, 21, 11, 3}, {2, 13, 700, 17}, {5, 4, 257, 8}});
  for (int i = 0; i < (under_racecheck() ? 1 : 10); ++i)
    shapes.push_back(
        {1 + random.below(9), 1 + random.below(300), 1 + random.below(300), 1 + random.below(20)});
  for (const Shape& s : shapes) {
    const Heads heads(s, seed);
    const std::vector<float> y = heads.run(0, s.n_tokens);
    heads.expect_near(y);
    heads.expect_rest_untouched(y);
  }
}

TEST_F(Cuda, ATokensProductsByHeadHaveTheBitsThatItHasAlone) {
  const Shape s{4, 64, 300, 19};
  const Heads heads(s, 1);
  const std::vector<float> all = heads.run(0, s.n_tokens);
  for (int t = 0; t < s.n_tokens; ++t) {
    const std::vector<float> alone = heads.run(t, 1);
    for (std::size_t i = 0; i < heads.of_token(); ++i) {
      const float together = all[static_cast<std::size_t>(t) * heads.of_token() + i];
      ASSERT_TRUE(alone[i] == together || (std::isnan(alone[i]) && std::isnan(together)))
          << "token " << t;
    }
  }
}

}  // namespace
}  // namespace assay::kernels
