// silu(gate x) · up x of a chunk's rows on tensor cores against double precision of the operands
// rounded to bfloat16: exact on integers, within a bound. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "kernels/fresh_seed_testing.h"
#include "kernels/gemm_testing.cuh"

namespace assay::kernels {
namespace {

// A kernel's float32 value lies within the error, and rounding is monotone: so h lies between what
// both ends round to, which most often are one value. However much room there is to decode in.
//
// Exact: x is in steps of 1024, and so a gate is 0 or at least 128 in size. Float32's silu of those
// is the gate itself (expf(-128) is 0 beside 1) or 0 (expf(128) is infinite); double precision's,
// rounded to bfloat16 after the product, too. What is left is one product of exact sums.
void expect_swiglu(const HostMatrix& gate, const HostMatrix& up, int n_tokens, bool exact,
                   Random& random, const std::string& what) {
  DeviceWeights memory;
  const DeviceMatrix of_gate = gate.upload(memory), of_up = up.upload(memory);
  const int rows = of_gate.n_rows, cols = of_gate.n_cols, stride = bf16_stride(rows);
  std::vector<float> x = random.floats(area(n_tokens, cols), exact);
  // Gates of all sizes: where silu bends, and where it is a line.
  const float size = exact ? 1024.0f : std::ldexp(1.0f, -random.below(6));
  for (float& v : x) v *= size;
  const auto dx = on_device(x, n_tokens, cols);
  const std::vector<double> g = rounded_weights(gate, rows, cols),
                            u = rounded_weights(up, rows, cols), rounded_x = rounded_values(x);
  std::vector<Hidden> expected;  // (n_tokens, rows)
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < rows; ++r) {
      const Hidden h = hidden_of(g.data() + area(r, cols), u.data() + area(r, cols),
                                 rounded_x.data() + area(t, cols), cols);
      expected.push_back(exact ? Hidden{rounded(h.value), 0} : h);
    }

  double worst = 0;
  for (const std::size_t n_values :
       std::set<std::size_t>{0, 2 * area(128, cols), decode_room(of_gate, of_up)}) {
    const DeviceArray<Bf16> values(std::max<std::size_t>(1, n_values));
    // Nothing is written past the last row.
    const DeviceArray<Bf16> dh(std::vector<Bf16>(area(n_tokens + 1, stride), kBf16Nan));
    gemm_swiglu_cuda(of_gate, of_up, dx.data(), n_tokens, dh.data(), {values.data(), n_values},
                     nullptr);
    const std::vector<Bf16> h = dh.host();
    for (int t = 0; t < n_tokens; ++t)
      for (int r = 0; r < rows; ++r) {
        const auto [value, error] = expected[area(t, rows) + static_cast<std::size_t>(r)];
        const auto got =
            static_cast<double>(bf16_to_f32(h[area(t, stride) + static_cast<std::size_t>(r)]));
        ASSERT_TRUE(rounded(value - error) <= got && got <= rounded(value + error))
            << what << ": token " << t << ", row " << r << " is " << got << ", expected " << value
            << " ± " << error << ", with room for " << n_values;
        const double bound = bf16_error({value, error});
        if (bound > 0) worst = std::max(worst, std::abs(got - value) / bound);
      }
    ASSERT_TRUE(std::all_of(h.end() - stride, h.end(), [](Bf16 v) { return v == kBf16Nan; }))
        << what;
  }
  std::printf("%-14s %4d x %3d, %3d tokens: worst error %.2g of its bound\n", what.c_str(), rows,
              cols, n_tokens, worst);
}

// Gate and up taken for each other, a weight's row beside its own, a slab's of the other matrix:
// nothing of that has these values.
TEST_F(Cuda, SwigluGemmsOfEveryKindOfMatrixAreExactOnIntegers) {
  Random random(51);
  const WeightType bf16 = WeightType::kBf16, f16 = WeightType::kF16, f32 = WeightType::kF32;
  for (const int n : sizes({1, 33, 150}, {33})) {
    const auto expect = [&](const HostMatrix& gate, const HostMatrix& up, const char* what) {
      expect_swiglu(gate, up, n, true, random, what);
    };
    expect(dense(bf16, 130, 264, true, random), dense(bf16, 130, 264, true, random), "bf16");
    expect(dense(f16, 65, 72, true, random), dense(f32, 65, 72, true, random), "f16, f32");
    expect(vq(8, 256, 96, 320, 64, true, random), vq(8, 256, 96, 320, 64, true, random), "vq");
    expect(vq(4, 4096, 65, 136, 64, true, random), vq(8, 256, 65, 136, 64, true, random),
           "vq 4, 8");
    expect(vq(8, 256, 65, 136, 64, true, random), dense(bf16, 65, 136, true, random), "vq, bf16");
    // Decoded at once, in slabs of 128 rows, or by tile.
    expect(gptq(4, 301, 128, 32, true, random), gptq(4, 301, 128, 64, true, random), "gptq4");
    expect(gptq(8, 301, 128, 128, true, random), gptq(4, 301, 128, 128, true, random), "gptq8, 4");
    expect(fp8_eighths(300, 136, 128, random), fp8_eighths(300, 136, 64, random), "fp8");
    expect(dense(bf16, 150, 128, true, random), gptq(8, 150, 128, 32, true, random), "bf16, gptq8");
    // One result, and matrices that are decoded one weight after the other.
    expect(dense(bf16, 1, 8, true, random), dense(bf16, 1, 8, true, random), "bf16");
    expect(dense(bf16, 67, 37, true, random), dense(bf16, 67, 37, true, random), "bf16");
    expect(dense(f32, 3, 1, true, random), dense(bf16, 3, 1, true, random), "f32, bf16");
    expect(vq(6, 300, 5, 48, 24, true, random), vq(8, 256, 5, 48, 24, true, random), "vq 6, 8");
    expect(gptq(8, 9, 44, 44, true, random), vq(4, 256, 9, 44, 12, true, random), "gptq8, vq");
    expect(fp8_eighths(13, 26, 8, random), dense(f16, 13, 26, true, random), "fp8, f16");
  }
}

// 67 tiles of columns: on any GPU of up to 134 multiprocessors 150 rows are in tiles of 128 (codes:
// of 64), 70 in tiles of 64.
TEST_F(Cuda, SwigluGemmsOfEveryTileAreExactOnIntegers) {
  Random random(52);
  constexpr int kRows = 4231, kCols = 40;
  for (const int n : sizes({70, 150}, {150})) {
    expect_swiglu(dense(WeightType::kBf16, kRows, kCols, true, random),
                  dense(WeightType::kBf16, kRows, kCols, true, random), n, true, random, "bf16");
    expect_swiglu(vq(8, 256, kRows, kCols, 40, true, random),
                  vq(8, 256, kRows, kCols, 40, true, random), n, true, random, "vq");
  }
}

TEST_F(Cuda, SwigluGemmsStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  const WeightType bf16 = WeightType::kBf16;
  const auto expect_any = [&](int n, int rows, int eighths, int any_cols) {
    const int cols = 8 * eighths;
    const auto expect = [&](const HostMatrix& gate, const HostMatrix& up, const char* what) {
      expect_swiglu(gate, up, n, false, random, what);
    };
    expect(dense(bf16, rows, cols, false, random), dense(bf16, rows, cols, false, random), "bf16");
    expect(dense(bf16, rows, any_cols, false, random), dense(bf16, rows, any_cols, false, random),
           "bf16");
    expect(vq(8, 256, rows, cols, 64, false, random), vq(8, 256, rows, cols, 64, false, random),
           "vq 8");
    expect(vq(4, 4096, rows, cols, 64, false, random), vq(8, 200, rows, cols, 32, false, random),
           "vq 4, 8");
    expect(gptq(4, rows, cols, 32, false, random), gptq(4, rows, cols, 64, false, random), "gptq4");
    expect(gptq(8, rows, cols, 32, false, random), gptq(4, rows, cols, 128, false, random),
           "gptq8, 4");
    expect(gptq(8, rows, 4 * any_cols, 32, false, random),
           gptq(8, rows, 4 * any_cols, 32, false, random), "gptq8");
    expect(fp8(rows, cols, 128, random), fp8(rows, cols, 128, random), "fp8");
    expect(fp8(rows, any_cols, 8, random), dense(bf16, rows, any_cols, false, random), "fp8, bf16");
  };
  expect_any(1, 1, 1, 1);
  expect_any(1, 129, 40, 37);
  expect_any(65, 257, 17, 43);
  for (int i = 0; i < 4; ++i)
    expect_any(1 + random.below(100), 1 + random.below(200), 1 + random.below(24),
               1 + random.below(60));
}

// Whatever an odd row's last pair wrote there, and whatever it did not.
TEST_F(Cuda, WhatLiesBetweenRowsOfASwigluGemmIsNoMatterToTheNextProduct) {
  Random random(53);
  constexpr int kTokens = 33, kHidden = 24, kWidth = 37;
  const int stride = bf16_stride(kWidth);
  const HostMatrix gate = dense(WeightType::kBf16, kWidth, kHidden, false, random),
                   up = dense(WeightType::kBf16, kWidth, kHidden, false, random),
                   down = dense(WeightType::kBf16, kHidden, kWidth, false, random);
  DeviceWeights memory;
  const DeviceMatrix of_down = down.upload(memory);
  const auto x = on_device(random.floats(area(kTokens, kHidden)), kTokens, kHidden);
  const DeviceArray<Bf16> h(std::vector<Bf16>(area(kTokens, stride), kBf16Nan));
  gemm_swiglu_cuda(gate.upload(memory), up.upload(memory), x.data(), kTokens, h.data(), {},
                   nullptr);
  const auto multiply = [&](const DeviceArray<Bf16>& rows) {
    const auto y = poisoned(area(kTokens, kHidden));
    gemm_cuda(of_down, rows.data(), kTokens, y.data(), kHidden, false, {}, nullptr);
    return y.host();
  };
  const std::vector<float> as_it_is = multiply(h);
  EXPECT_TRUE(
      std::all_of(as_it_is.begin(), as_it_is.end(), [](float v) { return std::isfinite(v); }));
  std::vector<Bf16> filled = h.host();
  for (const Bf16 fill : {Bf16{0}, kBf16Nan, Bf16{0x7F80}}) {
    for (int t = 0; t < kTokens; ++t)
      for (int r = kWidth; r < stride; ++r)
        filled[area(t, stride) + static_cast<std::size_t>(r)] = fill;
    EXPECT_EQ(multiply(DeviceArray<Bf16>(filled)), as_it_is) << fill;
  }
}

}  // namespace
}  // namespace assay::kernels
