// Products of several tokens on a GPU have, of each token, the bits that it has alone: every kind
// of matrix, whole pieces and none, rows in one part and in eight. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/few_rows_cuda.h"
#include "kernels/fresh_seed_testing.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

constexpr int kMostTokens = 9;  // a pass of eight and one of one

std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

// The same bits; of NaNs, another NaN.
bool is_same(float a, float b) {
  return std::bit_cast<unsigned>(a) == std::bit_cast<unsigned>(b) ||
         (std::isnan(a) && std::isnan(b));
}

// Rows of kMostTokens tokens with NaNs between them. The second token has an infinity and the
// fourth a NaN, which no other may meet.
std::vector<float> inputs(int n_cols, int stride, Random& random) {
  std::vector<float> x(area(kMostTokens, stride), std::nanf(""));
  for (int t = 0; t < kMostTokens; ++t) {
    const std::vector<float> row = random.floats(static_cast<std::size_t>(n_cols));
    std::copy(row.begin(), row.end(), x.begin() + static_cast<std::ptrdiff_t>(area(t, stride)));
  }
  x[area(1, stride) + static_cast<std::size_t>(random.below(n_cols))] =
      std::numeric_limits<float>::infinity();
  x[area(3, stride) + static_cast<std::size_t>(random.below(n_cols))] = std::nanf("");
  return x;
}

// What an output should be, and how far from it float32 may end.
struct Reference {
  double value, bound;
};
// run(x, y, n_tokens), of rows x_stride and y_stride apart, for 1 to kMostTokens tokens and each of
// them alone; y is `before` before. What is no row of y stays as it was. Each alone is, of some
// rows, reference(row, x of the token, y before).
template <class Run, class Expected>
void expect_bits_of_each_token_alone(const std::string& what, int n_rows, int n_cols,
                                     const std::vector<float>& before, int y_stride, Random& random,
                                     const Run& run, const Expected& reference) {
  const int x_stride = n_cols + 4 - n_cols % 4;  // 16-byte aligned, and longer
  const std::vector<float> host_x = inputs(n_cols, x_stride, random);
  const DeviceArray<float> x(host_x);
  const DeviceArray<float> one_by_one(before);
  for (int t = 0; t < kMostTokens; ++t)
    run(x.data() + area(t, x_stride), x_stride, one_by_one.data() + area(t, y_stride), 1);
  const std::vector<float> alone = one_by_one.host();
  for (int t = 0; t < kMostTokens; ++t) {
    if (t == 1 || t == 3) continue;  // not finite
    for (int r = n_rows - 1; r >= 0; r -= r > n_rows - 5 ? 1 : std::max(1, n_rows / 11)) {
      const std::size_t i = area(t, y_stride) + static_cast<std::size_t>(r);
      const Reference expected = reference(r, &host_x[area(t, x_stride)], before[i]);
      ASSERT_LE(std::abs(static_cast<double>(alone[i]) - expected.value), expected.bound)
          << what << " " << n_rows << " x " << n_cols << ": token " << t << " alone, row " << r;
    }
  }
  for (int n = 1; n <= kMostTokens; ++n) {
    const DeviceArray<float> together(before);
    run(x.data(), x_stride, together.data(), n);
    const std::vector<float> got = together.host();
    for (int t = 0; t < kMostTokens; ++t)
      for (int r = 0; r < y_stride; ++r) {
        const std::size_t i = area(t, y_stride) + static_cast<std::size_t>(r);
        const bool is_product = t < n && r < n_rows;
        ASSERT_TRUE(is_same(got[i], is_product ? alone[i] : before[i]))
            << what << " " << n_rows << " x " << n_cols << ", " << n << " tokens: token " << t
            << ", row " << r << ": " << got[i] << ", alone " << alone[i];
      }
  }
}

// A chain of float32 in lanes and a tree over them: at most n_cols + 3 roundings of each product.
Reference product(const HostMatrix& m, int row, int n_cols, const float* x) {
  Reference out{};
  for (int c = 0; c < n_cols; ++c) {
    const double p = m.at(row, c) * static_cast<double>(x[c]);
    out.value += p;
    out.bound += std::abs(p) * (n_cols + 3) * 0x1p-24;
  }
  return out;
}
// silu is nowhere steeper than 1.1; its parts and the product are eight roundings.
Reference gate_and_up(const Reference& gate, const Reference& up) {
  const double silu = gate.value / (1 + std::exp(-gate.value));
  return {silu * up.value, 1.1 * gate.bound * (std::abs(up.value) + up.bound) +
                               std::abs(silu) * up.bound +
                               8 * 0x1p-24 * (std::abs(silu * up.value) + gate.bound)};
}

void expect_products(const std::string& what, const HostMatrix& host, Random& random,
                     const UnitForm& units = {}) {
  DeviceWeights memory;
  const DeviceMatrix m = host.upload(memory, units);
  const int y_stride = m.n_rows + 3;
  for (const bool accumulate : {false, true}) {
    const std::size_t n = area(kMostTokens, y_stride);
    const std::vector<float> before =
        accumulate ? random.floats(n) : std::vector<float>(n, std::nanf(""));
    expect_bits_of_each_token_alone(
        what, m.n_rows, m.n_cols, before, y_stride, random,
        [&](const float* x, int x_stride, float* y, int n_tokens) {
          project_cuda(m, x, x_stride, n_tokens, y, y_stride, accumulate, nullptr);
        },
        [&](int row, const float* x, float y) {
          Reference sum = product(host, row, m.n_cols, x);
          if (!accumulate) return sum;
          const auto past = static_cast<double>(y);
          sum.value += past;
          sum.bound += (std::abs(past) + std::abs(sum.value)) * 0x1p-23;
          return sum;
        });
  }
}

TEST_F(Cuda, EachOfSeveralTokensHasTheBitsThatItHasAlone) {
  Random random(11);
  struct Size {
    int n_rows, n_cols;
  };
  // Rows in one, two and eight parts; of which a warp has one, two and four (of an H200), the last
  // ones missing, and of four the blocks fill a GPU three times over, two or four times, so that
  // both ways to read ahead are taken; pieces that do not go around, and fewer than lanes.
  const std::vector<Size> in_pieces = sizes<Size>({{5, 264},
                                                   {3021, 1600},
                                                   {6021, 1600},
                                                   {130, 6144},
                                                   {770, 6144},
                                                   {1061, 6144},
                                                   {1, 8},
                                                   {16385, 96}},
                                                  {{5, 264}, {3, 6144}});
  for (const Size& s : in_pieces) {
    expect_products("bf16", dense(WeightType::kBf16, s.n_rows, s.n_cols, false, random), random);
    expect_products("f16", dense(WeightType::kF16, s.n_rows, s.n_cols, false, random), random);
    expect_products("f32", dense(WeightType::kF32, s.n_rows, s.n_cols, false, random), random);
    expect_products("fp8", fp8(s.n_rows, s.n_cols, 32, random), random);
    // A group of 16 has no units: in rows.
    expect_products("gptq4", gptq(4, s.n_rows, s.n_cols, 16, false, random), random);
    expect_products("gptq8", gptq(8, s.n_rows, s.n_cols, 16, false, random), random);
  }
}

TEST_F(Cuda, SoItHasWhereRowsAreNoWholePieces) {
  Random random(12);
  for (const int n_cols : {1, 101, 3102}) {
    expect_products("bf16", dense(WeightType::kBf16, 37, n_cols, false, random), random);
    expect_products("f16", dense(WeightType::kF16, 37, n_cols, false, random), random);
    expect_products("f32", dense(WeightType::kF32, 37, n_cols, false, random), random);
    expect_products("fp8", fp8(37, n_cols, 32, random), random);
  }
  expect_products("fp8, groups of 24", fp8(50, 96, 24, random), random);
  expect_products("gptq4, groups of 24", gptq(4, 37, 96, 24, false, random), random);
  expect_products("gptq8, groups of 24", gptq(8, 37, 96, 24, false, random), random);
  expect_products("gptq8 in units", gptq(8, 37, 384, 64, false, random), random);
  for (const int n_codes : {256, 4096})
    for (const int dim : {4, 8}) {
      expect_products("vq", vq(dim, n_codes, 33, 1560, 24, false, random), random);
      const HostMatrix m = vq(dim, n_codes, 19, 1024, 128, false, random);
      expect_products("vq in units", m, random, {dim, n_codes == 256 ? 8 : 12, 4});
    }
}

// x of several tokens is more than a first-level cache should hold: warps have two parts of a row
// in turn, of four in all with eight tokens, of eight with four too.
TEST_F(Cuda, SoItHasWhereRowsAreLong) {
  if (under_racecheck()) GTEST_SKIP() << "too large for racecheck";
  Random random(13);
  expect_products("bf16", dense(WeightType::kBf16, 6021, 4104, false, random), random);
  expect_products("fp8", fp8(6021, 4104, 128, random), random);
  expect_products("bf16", dense(WeightType::kBf16, 2200, 8200, false, random), random);
}

TEST_F(Cuda, SoItHasWhateverTheShape) {
  Random random(fresh_seed());
  for (int i = 0; i < (under_racecheck() ? 1 : 12); ++i) {
    const int n_rows = 1 + random.below(600), n_cols = 1 + random.below(5000),
              group = 1 << (2 + random.below(6));
    expect_products("bf16", dense(WeightType::kBf16, n_rows, n_cols, false, random), random);
    expect_products("bf16", dense(WeightType::kBf16, n_rows, n_cols / 8 * 8 + 8, false, random),
                    random);
    expect_products("f32", dense(WeightType::kF32, n_rows, n_cols / 4 * 4 + 4, false, random),
                    random);
    expect_products("fp8", fp8(n_rows, n_cols / 4 * 4 + 4, group, random), random);
    expect_products("gptq4", gptq(4, n_rows, n_cols / 8 * 8 + 8, 16, false, random), random);
  }
}

void expect_gates_and_ups(const std::string& what, const HostMatrix& host_gate,
                          const HostMatrix& host_up, Random& random) {
  DeviceWeights memory;
  const DeviceMatrix gate = host_gate.upload(memory), up = host_up.upload(memory);
  expect_bits_of_each_token_alone(
      what, gate.n_rows, gate.n_cols,
      std::vector<float>(area(kMostTokens, gate.n_rows), std::nanf("")), gate.n_rows, random,
      [&](const float* x, int x_stride, float* h, int n_tokens) {
        swiglu_cuda(gate, up, x, x_stride, n_tokens, h, nullptr);
      },
      [&](int row, const float* x, float) {
        return gate_and_up(product(host_gate, row, gate.n_cols, x),
                           product(host_up, row, gate.n_cols, x));
      });
}

TEST_F(Cuda, SoHaveGatesAndUps) {
  Random random(14);
  // The last two: four rows a warp, of an H200 (as above).
  for (const int n_rows : sizes<int>({1, 96, 3101, 6301, 8401}, {1, 37})) {
    for (const int n_cols : n_rows > 6000 ? std::vector{104} : std::vector{320, 1544, 101}) {
      for (const WeightType type : {WeightType::kBf16, WeightType::kF16, WeightType::kF32})
        expect_gates_and_ups("dense", dense(type, n_rows, n_cols, false, random),
                             dense(type, n_rows, n_cols, false, random), random);
      expect_gates_and_ups("fp8", fp8(n_rows, n_cols, 32, random), fp8(n_rows, n_cols, 32, random),
                           random);
      expect_gates_and_ups("bf16 and fp8", dense(WeightType::kBf16, n_rows, n_cols, false, random),
                           fp8(n_rows, n_cols, 64, random), random);
    }
    for (const int bits : {4, 8})
      expect_gates_and_ups("gptq", gptq(bits, n_rows, 320, 16, false, random),
                           gptq(bits, n_rows, 320, 16, false, random), random);
  }
}

TEST_F(Cuda, WhatGoesByThePieceIsKnown) {
  Random random(17);
  DeviceWeights memory;
  const DeviceMatrix whole = dense(WeightType::kBf16, 8, 64, false, random).upload(memory),
                     odd = dense(WeightType::kBf16, 8, 63, false, random).upload(memory),
                     other = fp8(8, 64, 32, random).upload(memory),
                     units = gptq(8, 48, 384, 64, false, random).upload(memory),
                     rows = gptq(4, 8, 64, 16, false, random).upload(memory),
                     code = vq(4, 256, 8, 64, 16, false, random).upload(memory);
  for (const DeviceMatrix* m : {&whole, &other, &units, &rows}) {
    EXPECT_FALSE(project_is_by_piece(*m));
    EXPECT_FALSE(swiglu_is_by_piece(*m, *m));
  }
  for (const DeviceMatrix* m : {&odd, &code}) {
    EXPECT_TRUE(project_is_by_piece(*m));
    EXPECT_TRUE(swiglu_is_by_piece(*m, *m));
  }
  EXPECT_TRUE(swiglu_is_by_piece(whole, other));
  EXPECT_TRUE(swiglu_is_by_piece(units, rows));
}

// Rows in eight parts (the first, and the second of up to four tokens), in four and two in turn,
// and in two, which eight tokens take in turn by one warp (the last, of an H100 or H200).
TEST_F(Cuda, SoHaveGatesAndUpsOfLongRows) {
  Random random(15);
  const auto expect = [&](int n_rows, int n_cols) {
    expect_gates_and_ups("bf16", dense(WeightType::kBf16, n_rows, n_cols, false, random),
                         dense(WeightType::kBf16, n_rows, n_cols, false, random), random);
    expect_gates_and_ups("fp8", fp8(n_rows, n_cols, 128, random), fp8(n_rows, n_cols, 128, random),
                         random);
  };
  for (const int n_rows : sizes<int>({37, 1061, 2200}, {3})) expect(n_rows, 6144);
  if (!under_racecheck()) expect(6021, 4104);
}

// Where both's rows are in as many parts as either's. x is so large that a gate's silu is the gate
// itself, or zero.
TEST_F(Cuda, GatesAndUpsHaveTheBitsOfTheirProducts) {
  Random random(16);
  const auto expect_bits = [&](const HostMatrix& host_gate, const HostMatrix& host_up) {
    DeviceWeights memory;
    const DeviceMatrix gate = host_gate.upload(memory), up = host_up.upload(memory);
    for (const int n_tokens : {1, 8}) {
      std::vector<float> x = random.floats(area(n_tokens, gate.n_cols));
      for (float& v : x) v *= 1e6f;
      const DeviceArray<float> dx(x);
      const std::size_t n = area(n_tokens, gate.n_rows);
      const auto h = poisoned(n), g = poisoned(n), u = poisoned(n);
      swiglu_cuda(gate, up, dx.data(), gate.n_cols, n_tokens, h.data(), nullptr);
      project_cuda(gate, dx.data(), gate.n_cols, n_tokens, g.data(), gate.n_rows, false, nullptr);
      project_cuda(up, dx.data(), up.n_cols, n_tokens, u.data(), up.n_rows, false, nullptr);
      const std::vector<float> got = h.host(), of_gate = g.host(), of_up = u.host();
      std::size_t n_compared = 0;
      for (std::size_t i = 0; i < n; ++i) {
        if (std::abs(of_gate[i]) < 128) continue;
        ++n_compared;
        ASSERT_EQ(got[i], std::max(of_gate[i], 0.0f) * of_up[i])
            << gate.n_rows << " x " << gate.n_cols << ", " << n_tokens << " tokens: " << i;
      }
      EXPECT_GT(2 * n_compared, n);
    }
  };
  const auto expect_bits_of = [&](int n_rows, int n_cols) {
    for (const WeightType type : {WeightType::kBf16, WeightType::kF16, WeightType::kF32})
      expect_bits(dense(type, n_rows, n_cols, false, random),
                  dense(type, n_rows, n_cols, false, random));
    expect_bits(fp8(n_rows, n_cols, 32, random), fp8(n_rows, n_cols, 32, random));
    expect_bits(gptq(4, n_rows, n_cols, 16, false, random),
                gptq(4, n_rows, n_cols, 16, false, random));
    expect_bits(gptq(8, n_rows, n_cols, 16, false, random),
                gptq(8, n_rows, n_cols, 16, false, random));
  };
  for (const int n_rows : sizes<int>({37, 1061}, {3}))
    for (const int n_cols : sizes<int>({320, 1600, 6144}, {320, 6144}))
      expect_bits_of(n_rows, n_cols);
}

}  // namespace
}  // namespace assay::kernels
