// RoPE and the indexer's keys on a GPU, against the reference: exact where float32 holds every
// step, within a derived bound, and at edges. Need a GPU; say so and skip where there is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "kernels/cpu_kernels_testing.h"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace assay::kernels {
namespace {

std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

// Rows of n_heads vectors of `width`, the first `dim` values of which are rotated: row r at
// position r * step.
struct Rotations {
  int dim, n_heads, width;
  bool interleaved;
  std::vector<float> cosine, sine;
  Rotations(int dim_, int n_heads_, int width_, bool interleaved_, int n_rows, int step = 1000)
      : dim(dim_),
        n_heads(n_heads_),
        width(width_),
        interleaved(interleaved_),
        cosine(area(n_rows, dim / 2)),
        sine(cosine.size()) {
    const RopeTable table(1e6, dim);
    for (int r = 0; r < n_rows; ++r)
      table.angles(r * step, &cosine[area(r, dim / 2)], &sine[area(r, dim / 2)]);
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

void expect_rotations(int dim, int heads, int width, bool interleaved, Random& random) {
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
      ASSERT_TRUE(near(y[i], i)) << i << ": " << y[i] << ", expected " << expected[i] << ", "
                                 << heads << " x " << dim << " of " << width;
    else
      ASSERT_TRUE(std::isnan(y[i])) << i << ", " << heads << " x " << dim << " of " << width;
  const std::vector<float> in_place = r.by_cuda(x, true);
  for (std::size_t i = 0; i < y.size(); ++i)
    ASSERT_EQ(in_place[i],
              static_cast<int>(i % static_cast<std::size_t>(width)) < dim ? y[i] : x[i])
        << i << ", " << heads << " x " << dim << " of " << width;
}

TEST_F(Cuda, RotationsAgreeAndTouchNothingElse) {
  Random random(fresh_seed());
  for (const auto& [dim, heads, width] :
       {std::tuple{32, 3, 40}, {64, 64, 65}, {64, 1, 64}, {256, 7, 300}, {2, 5, 3}})
    for (const bool interleaved : {true, false})
      expect_rotations(dim, heads, width, interleaved, random);
}

TEST_F(Cuda, RotationsOfDrawnShapesStayWithinTheirBound) {
  Random random(fresh_seed());
  for (int i = 0; i < 12; ++i) {
    const int dim = 2 * (1 + random.below(kMaxRopeCuda / 2)), heads = 1 + random.below(70);
    expect_rotations(dim, heads, dim + random.below(40), random.below(2) == 0, random);
  }
}

// Vectors to rotate: head h of row r at first + r * row + h * head.
struct Place {
  int first, row, head;
};
struct Vectors {
  int dim, n_heads;
  Place from, to;
};
// GLM-5.2's and micro-glm's queries, from behind what is not turned to behind the latent; the
// indexer's; odd ones.
constexpr Vectors kVectors[] = {{64, 64, {192, 64 * 256, 256}, {512, 64 * 576, 576}},
                                {32, 6, {32, 6 * 64, 64}, {128, 6 * 160, 160}},
                                {64, 32, {0, 32 * 128, 128}, {0, 32 * 128, 128}},
                                {2, 5, {1, 5 * 3 + 2, 3}, {0, 5 * 2, 2}},
                                {256, 3, {0, 3 * 256, 256}, {7, 3 * 300 + 1, 300}},
                                {6, 93, {5, 93 * 6 + 9, 6}, {3, 93 * 11, 11}}};

// x (rows, n_heads, dim) as it lies there, and NaN wherever no vector is.
std::vector<float> laid_out(const std::vector<float>& x, const Vectors& v, const Place& place) {
  const int n = static_cast<int>(x.size()) / v.dim;
  std::vector<float> out(static_cast<std::size_t>(place.first) + area(n / v.n_heads, place.row),
                         std::nanf(""));
  for (int i = 0; i < n; ++i)
    std::copy_n(&x[area(i, v.dim)], v.dim,
                &out[static_cast<std::size_t>(place.first) + area(i / v.n_heads, place.row) +
                     area(i % v.n_heads, place.head)]);
  return out;
}
std::vector<float> rotated(const std::vector<float>& x, const Vectors& v, const Rotations& by) {
  const int n_rows = static_cast<int>(x.size()) / (v.n_heads * v.dim);
  const DeviceArray<float> from(laid_out(x, v, v.from)), cosine(by.cosine), sine(by.sine);
  const auto to = poisoned(static_cast<std::size_t>(v.to.first) + area(n_rows, v.to.row));
  rope_cuda({cosine.data(), sine.data(), v.dim, by.interleaved},
            {from.data() + v.from.first, v.from.row, v.from.head},
            {to.data() + v.to.first, v.to.row, v.to.head}, v.n_heads, n_rows, nullptr);
  return to.host();
}

// What turns a pair need be no turn: whole cosines and sines give sums up to 2^24. Another pair's,
// row's or head's, an exchanged sign or value, and fewer bits than float32's would show.
TEST_F(Cuda, RotationsAreExactOnIntegersAndWriteNothingElse) {
  Random random(fresh_seed());
  constexpr int kRows = 3, kLargest = 1 << 20;
  for (const Vectors& v : kVectors)
    for (const bool interleaved : {true, false}) {
      Rotations by(v.dim, v.n_heads, v.dim, interleaved, kRows);
      by.cosine = random.floats(by.cosine.size(), true);
      by.sine = random.floats(by.sine.size(), true);
      std::vector<float> x(area(kRows, v.n_heads * v.dim));
      for (float& value : x) value = static_cast<float>(random.below(2 * kLargest + 1) - kLargest);
      EXPECT_EQ(first_difference(laid_out(by.by_reference(x), v, v.to), rotated(x, v, by)), "")
          << v.n_heads << " x " << v.dim << (interleaved ? ", interleaved" : "");
    }
}

// Any finite value but zero, whose sign the addition of another zero may take.
TEST_F(Cuda, NothingIsTurnedAtPositionZero) {
  Random random(fresh_seed());
  constexpr int kRows = 2;
  for (const Vectors& v : kVectors)
    for (const bool interleaved : {true, false}) {
      std::vector<float> x(area(kRows, v.n_heads * v.dim));
      for (float& value : x) {
        do value = std::bit_cast<float>(static_cast<std::uint32_t>(random.rng()));
        while (!std::isfinite(value) || value == 0);
      }
      const Rotations none(v.dim, v.n_heads, v.dim, interleaved, kRows, 0);
      EXPECT_EQ(first_difference(laid_out(x, v, v.to), rotated(x, v, none)), "")
          << v.n_heads << " x " << v.dim << (interleaved ? ", interleaved" : "");
    }
}

TEST_F(Cuda, ARotationKeepsNaNAndInfinityInTheirPair) {
  Random random(8);
  constexpr int kRows = 3;
  for (const Vectors& v : kVectors)
    for (const bool interleaved : {true, false}) {
      const Rotations by(v.dim, v.n_heads, v.dim, interleaved, kRows);
      std::vector<float> x = random.floats(area(kRows, v.n_heads * v.dim));
      std::vector<float> expected = rotated(x, v, by);
      x[static_cast<std::size_t>(random.below(static_cast<int>(x.size())))] = std::nanf("");
      x[static_cast<std::size_t>(random.below(static_cast<int>(x.size())))] =
          std::numeric_limits<float>::infinity();
      const std::vector<float> reference = laid_out(by.by_reference(x), v, v.to);
      for (std::size_t i = 0; i < expected.size(); ++i)
        if (!std::isfinite(reference[i])) expected[i] = reference[i];
      EXPECT_EQ(first_difference(expected, rotated(x, v, by)), "")
          << v.n_heads << " x " << v.dim << (interleaved ? ", interleaved" : "");
    }
}

// Index keys of rows as their caches have them: (positions, dim). Row r's begins r keys on, and its
// position there is r + 1: the keys of all lie at 2 r + 1.
struct IndexKeys {
  int dim, rope;
  std::vector<float> weight, bias;
  float eps = 1e-6f;
  std::vector<float> by_cuda(const std::vector<float>& in, const Rotations& angles) const {
    const int n_rows = static_cast<int>(in.size()) / dim;
    const auto cache = poisoned(area(2 * n_rows + 1, dim));
    std::vector<int> position;
    std::vector<float*> of_row;
    for (int r = 0; r < n_rows; ++r) {
      position.push_back(r + 1);
      of_row.push_back(cache.data() + r * dim);
    }
    const DeviceArray<float> x(in), w(weight), b(bias), c(angles.cosine), s(angles.sine);
    const DeviceArray<float*> caches(of_row);
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

void expect_index_keys(int dim, int rope, bool interleaved, Random& random) {
  constexpr int kRows = 3;
  const Rotations angles(rope, 1, dim, interleaved, kRows);
  const IndexKeys keys = {dim, rope, random.floats(static_cast<std::size_t>(dim)),
                          random.floats(static_cast<std::size_t>(dim))};
  const std::vector<float> in = random.floats(area(kRows, dim)), got = keys.by_cuda(in, angles),
                           expected = keys.by_reference(in, angles);
  for (int r = 0; r < kRows; ++r) {
    const double bound = keys.bound(&in[area(r, dim)]);
    for (int i = 0; i < dim; ++i) {
      ASSERT_NEAR(got[area(2 * r + 1, dim) + static_cast<std::size_t>(i)],
                  expected[area(r, dim) + static_cast<std::size_t>(i)], bound)
          << i << " of " << dim << ", " << rope << " turned, row " << r;
    }
  }
  for (int r = 0; r <= kRows; ++r)
    for (int i = 0; i < dim; ++i)
      ASSERT_TRUE(std::isnan(got[area(2 * r, dim) + static_cast<std::size_t>(i)]))
          << r << ", " << i;
}

TEST_F(Cuda, IndexKeysAreNormedAndRotatedWithinTheirBound) {
  Random random(fresh_seed());
  for (const auto& [dim, rope] :
       {std::pair{128, 64}, {64, 32}, {128, 128}, {30, 6}, {1024, 64}, {2, 2}})
    for (const bool interleaved : {true, false}) expect_index_keys(dim, rope, interleaved, random);
}

TEST_F(Cuda, IndexKeysOfDrawnShapesStayWithinTheirBound) {
  Random random(fresh_seed());
  for (int i = 0; i < 12; ++i) {
    const int dim = 2 + random.below(kMaxIndexDimCuda - 1),
              rope = 2 * (1 + random.below(std::min(dim, kMaxRopeCuda) / 2));
    expect_index_keys(dim, rope, random.below(2) == 0, random);
  }
}

// A mean with an infinity or a NaN in it leaves nothing of its key, and nothing of it elsewhere.
TEST_F(Cuda, NaNAndInfinityStayInTheirIndexKey) {
  Random random(11);
  for (const auto& [dim, rope] : {std::pair{128, 64}, {64, 32}, {30, 6}, {1024, 64}, {2, 2}}) {
    constexpr int kRows = 5;
    const Rotations angles(rope, 1, dim, true, kRows);
    const IndexKeys keys = {dim, rope, random.floats(static_cast<std::size_t>(dim)),
                            random.floats(static_cast<std::size_t>(dim))};
    std::vector<float> in = random.floats(area(kRows, dim)), expected = keys.by_cuda(in, angles);
    for (const auto& [row, bad] :
         {std::pair{1, std::nanf("")}, {4, std::numeric_limits<float>::infinity()}}) {
      in[area(row, dim) + static_cast<std::size_t>(random.below(dim))] = bad;
      std::fill_n(&expected[area(2 * row + 1, dim)], dim, std::nanf(""));
    }
    EXPECT_EQ(first_difference(expected, keys.by_cuda(in, angles)), "") << dim << ", " << rope;
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

}  // namespace
}  // namespace assay::kernels
