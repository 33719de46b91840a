// A matrix to a head: exact on integers, within its bound of the exact sums, with the bits that a
// token has alone, and at edges.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <utility>
#include <vector>

#include "kernels/cpu_kernels_testing.h"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  int n_heads, n_rows, n_cols, n_tokens;
};
std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << s.n_heads << " heads of " << s.n_rows << " x " << s.n_cols << ", " << s.n_tokens
             << " tokens";
}

std::vector<float> numbers(int n, unsigned seed) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& v : out) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int>(seed) >> 8) * 0x1p-23f;
  }
  return out;
}

// Heads and tokens of x and y are farther apart than what is used of them, as a layer has them.
// What lies between in x is NaN.
class Heads {
 public:
  // w (n_heads, n_rows, n_cols), x (n_tokens, n_heads, n_cols).
  Heads(const Shape& s, std::vector<float> w, const std::vector<float>& x)
      : w_(std::move(w)),
        x_(static_cast<std::size_t>(s.n_tokens * (s.n_heads * (s.n_cols + 4) + 5)), std::nanf("")),
        s_(s),
        x_head_(s.n_cols + 4),
        y_head_(s.n_rows + 3),
        x_token_(s.n_heads * x_head_ + 5),
        y_token_(s.n_heads * y_head_ + 2) {
    for (int i = 0; i < s.n_tokens * s.n_heads; ++i)
      std::copy_n(x.begin() + i * s.n_cols, s.n_cols, &x_of(i / s.n_heads, i % s.n_heads, 0));
  }
  Heads(const Shape& s, unsigned seed)
      : Heads(s, numbers(s.n_heads * s.n_rows * s.n_cols, seed),
              numbers(s.n_tokens * s.n_heads * s.n_cols, seed + 1)) {}

  std::vector<float> run(int first_token, int n_tokens) const {
    const DeviceArray<float> w(w_), x(x_);
    auto y = poisoned(static_cast<std::size_t>(n_tokens * y_token_));
    project_heads_cuda({.w = w.data(),
                        .n_heads = s_.n_heads,
                        .n_rows = s_.n_rows,
                        .n_cols = s_.n_cols,
                        .x = x.data() + first_token * x_token_,
                        .x_token_stride = x_token_,
                        .x_head_stride = x_head_,
                        .y = y.data(),
                        .y_token_stride = y_token_,
                        .y_head_stride = y_head_,
                        .n_tokens = n_tokens},
                       nullptr);
    return y.host();
  }
  std::vector<float> run() const { return run(0, s_.n_tokens); }

  // As it should be but for rounding: NaN is what no head's row is.
  std::vector<float> expected() const {
    std::vector<float> y(static_cast<std::size_t>(s_.n_tokens * y_token_), std::nanf(""));
    each([&](int t, int h, int r) { y[y_at(t, h, r)] = static_cast<float>(sum(t, h, r).value); });
    return y;
  }
  void expect_near(const std::vector<float>& y) const {
    const std::vector<float> expected_y = expected();
    std::vector<double> bound(y.size());
    each([&](int t, int h, int r) {
      // One more for the rounding of what is expected.
      bound[y_at(t, h, r)] = (s_.n_cols / 32 + 9) * 0x1p-24 * sum(t, h, r).size;
    });
    expect_within(expected_y, y, bound);
  }

  float& w_of(int h, int r, int c) {
    return w_[static_cast<std::size_t>((h * s_.n_rows + r) * s_.n_cols + c)];
  }
  float& x_of(int t, int h, int c) {
    return x_[static_cast<std::size_t>(t * x_token_ + h * x_head_ + c)];
  }
  std::size_t y_at(int t, int h, int r) const {
    return static_cast<std::size_t>(t * y_token_ + h * y_head_ + r);
  }

 private:
  struct Sum {
    double value, size;  // size: of its products' sizes
  };
  Sum sum(int t, int h, int r) const {
    const float* w = &w_[static_cast<std::size_t>((h * s_.n_rows + r) * s_.n_cols)];
    const float* x = &x_[static_cast<std::size_t>(t * x_token_ + h * x_head_)];
    Sum out = {0, 0};
    for (int c = 0; c < s_.n_cols; ++c) {
      const double p = static_cast<double>(w[c]) * static_cast<double>(x[c]);
      out.value += p, out.size += std::abs(p);
    }
    return out;
  }
  template <class Visit>
  void each(const Visit& visit) const {
    for (int t = 0; t < s_.n_tokens; ++t)
      for (int h = 0; h < s_.n_heads; ++h)
        for (int r = 0; r < s_.n_rows; ++r) visit(t, h, r);
  }
  std::vector<float> w_, x_;
  const Shape s_;
  const int x_head_, y_head_, x_token_, y_token_;
};

Shape drawn_shape(Random& random) {
  return {1 + random.below(9), 1 + random.below(300), 1 + random.below(300), 1 + random.below(20)};
}

// GLM-5.2's and micro-glm's, queries into the latent and latents to values; odd ones. x is as large
// as keeps every sum within 2^24: exact in any order, but not with fewer bits than float32 has.
TEST_F(Cuda, ProductsByHeadAreExactOnIntegers) {
  Random random(fresh_seed());
  std::vector<Shape> shapes =
      sizes<Shape>({{64, 512, 192, 1},
                    {64, 512, 192, 3},
                    {64, 256, 512, 1},
                    {64, 256, 512, 2},
                    {6, 128, 32, 1},
                    {6, 128, 32, 9},
                    {6, 64, 128, 1},
                    {6, 64, 128, 17},
                    {3, 21, 11, 3},
                    {2, 13, 700, 17},
                    {1, 1, 1, 1},
                    {1, 3, 2, 1},
                    {5, 4, 257, 8},
                    {3, 6, 256, 9},
                    {2, 8, 512, 16},
                    {4, 7, 513, 1}},
                   {{6, 128, 32, 9}, {3, 21, 11, 3}, {2, 13, 700, 1}, {5, 4, 257, 8}});
  for (int i = 0; i < (under_racecheck() ? 1 : 6); ++i) shapes.push_back(drawn_shape(random));
  for (const Shape& s : shapes) {
    const int largest = (1 << 24) / (8 * s.n_cols);
    std::vector<float> x(static_cast<std::size_t>(s.n_tokens * s.n_heads * s.n_cols));
    for (float& v : x) v = static_cast<float>(random.below(2 * largest + 1) - largest);
    const auto n_weights = static_cast<std::size_t>(s.n_heads * s.n_rows * s.n_cols);
    const Heads heads(s, random.floats(n_weights, true), x);
    EXPECT_EQ(first_difference(heads.expected(), heads.run()), "") << s;
  }
}

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
  for (int i = 0; i < (under_racecheck() ? 1 : 10); ++i) shapes.push_back(drawn_shape(random));
  for (const Shape& s : shapes) {
    SCOPED_TRACE(testing::Message() << s);
    const Heads heads(s, seed);
    heads.expect_near(heads.run());
  }
}

TEST_F(Cuda, ATokensProductsByHeadHaveTheBitsThatItHasAlone) {
  const Shape s{4, 64, 300, 19};
  const Heads heads(s, 1);
  const std::vector<float> all = heads.run();
  for (int t = 0; t < s.n_tokens; ++t) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(heads.y_at(t, 0, 0)),
               end = all.begin() + static_cast<std::ptrdiff_t>(heads.y_at(t + 1, 0, 0));
    EXPECT_EQ(first_difference({begin, end}, heads.run(t, 1)), "") << "token " << t;
  }
}

// Tokens share the weights that a warp has read, and rows the x: one that were multiplied away
// instead of left out would show in its neighbours.
TEST_F(Cuda, ProductsByHeadKeepNaNAndInfinityInTheirTokensHeadAndTheirRow) {
  Random random(3);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const Shape& s : sizes<Shape>({{8, 256, 512, 9},
                                      {6, 128, 32, 9},
                                      {6, 64, 128, 1},
                                      {3, 21, 11, 3},
                                      {2, 13, 700, 17},
                                      {5, 4, 257, 8}},
                                     {{3, 21, 11, 3}, {5, 4, 257, 9}})) {
    Heads heads(s, 2);
    const std::vector<float> whole = heads.run();
    for (const float bad : sizes<float>({std::nanf(""), kInf, -kInf}, {std::nanf("")}))
      for (const int c : {0, random.below(s.n_cols), s.n_cols - 1}) {
        const int t = random.below(s.n_tokens), h = random.below(s.n_heads),
                  r = random.below(s.n_rows);
        std::vector<float> expected = whole;
        for (int i = 0; i < s.n_rows; ++i)
          expected[heads.y_at(t, h, i)] = heads.w_of(h, i, c) * bad;
        const float x = std::exchange(heads.x_of(t, h, c), bad);
        EXPECT_EQ(first_difference(expected, heads.run()), "")
            << bad << " in x, token " << t << ", head " << h << ", column " << c << ", " << s;
        heads.x_of(t, h, c) = x;
        expected = whole;
        for (int i = 0; i < s.n_tokens; ++i)
          expected[heads.y_at(i, h, r)] = heads.x_of(i, h, c) * bad;
        const float w = std::exchange(heads.w_of(h, r, c), bad);
        EXPECT_EQ(first_difference(expected, heads.run()), "")
            << bad << " in w, head " << h << ", row " << r << ", column " << c << ", " << s;
        heads.w_of(h, r, c) = w;
      }
  }
}

}  // namespace
}  // namespace assay::kernels
