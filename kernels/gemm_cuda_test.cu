// Products on tensor cores against sums in double precision of the operands rounded to bfloat16:
// every kind of matrix, exact on integers, within a bound, at edges, and the same bits whatever the
// batch. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/fresh_seed_testing.h"
#include "kernels/gemm_testing.cuh"

namespace assay::kernels {
namespace {

void expect_gemm(const HostMatrix& m, int rows, int cols, int n_tokens, bool exact, Random& random,
                 const char* what) {
  DeviceWeights memory;
  const DeviceMatrix d = m.upload(memory);
  const std::vector<float> x = random.floats(area(n_tokens, cols), exact),
                           before = random.floats(area(n_tokens, rows), exact);
  const std::vector<double> w = rounded_weights(m, rows, cols), rounded_x = rounded_values(x);
  const auto dx = on_device(x, n_tokens, cols);
  const int stride = rows + 1 + random.below(4);  // odd, so that no pair is aligned, or even
  const auto y = poisoned(area(n_tokens, stride));
  const DeviceArray<float> sum(before);
  gemm_cuda(d, dx.data(), n_tokens, y.data(), stride, false, {}, nullptr);
  gemm_cuda(d, dx.data(), n_tokens, sum.data(), rows, true, {}, nullptr);
  const std::vector<float> got = y.host(), added = sum.host();
  double worst = 0;
  for (int t = 0; t < n_tokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      double expected = 0, size = 0;
      for (int c = 0; c < cols; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double p = w[area(r, cols) + i] * rounded_x[area(t, cols) + i];
        expected += p;
        size += std::abs(p);
      }
      const float value = got[area(t, stride) + static_cast<std::size_t>(r)];
      const double bound = exact ? 0 : sum_error(cols, size);
      const double delta = std::abs(static_cast<double>(value) - expected);
      ASSERT_LE(delta, bound) << what << ": token " << t << ", row " << r;
      if (bound > 0) worst = std::max(worst, delta / bound);
      const std::size_t at = area(t, rows) + static_cast<std::size_t>(r);
      ASSERT_EQ(added[at], before[at] + value) << what << ": token " << t << ", row " << r;
    }
    for (int r = rows; r < stride; ++r)
      ASSERT_TRUE(std::isnan(got[area(t, stride) + static_cast<std::size_t>(r)])) << what;
  }
  std::printf("%-10s %4d x %4d, %3d tokens: worst error %.2g of its bound\n", what, rows, cols,
              n_tokens, worst);
}

TEST_F(Cuda, GemmsOfEveryKindOfMatrixAreExactOnIntegers) {
  Random random(31);
  for (const int n : sizes({1, 33, 150}, {33})) {
    for (const WeightType type : {WeightType::kBf16, WeightType::kF16, WeightType::kF32})
      expect_gemm(dense(type, 130, 264, true, random), 130, 264, n, true, random, "dense");
    for (const auto& [dim, codes] : {std::pair{8, 256}, {8, 4096}, {4, 256}, {4, 4096}})
      expect_gemm(vq(dim, codes, 96, 320, 64, true, random), 96, 320, n, true, random, "vq");
    expect_gemm(gptq(4, 64, 320, 32, true, random), 64, 320, n, true, random, "gptq4");
    expect_gemm(gptq(8, 40, 128, 128, true, random), 40, 128, n, true, random, "gptq8");
    expect_gemm(fp8_eighths(70, 264, 128, random), 70, 264, n, true, random, "fp8");
  }
}

// Sums of two codewords.
HostMatrix of_two_books(int rows, int cols, int group, Random& random) {
  // Twice the columns have twice the indices, and as many groups.
  HostMatrix m = vq(8, 60, rows, 2 * cols, 2 * group, true, random);
  const std::vector<float> second = random.floats(m.codebook.size(), true);
  m.codebook.insert(m.codebook.end(), second.begin(), second.end());
  m.vq.codebook = m.codebook.data();
  m.vq.n_cols = cols, m.vq.group = group, m.vq.n_books = 2;
  return m;
}

// One weight after the other, none read past the matrix: columns or groups in no eights, codewords
// of six values, several books.
TEST_F(Cuda, GemmsOfMatricesThatAreDecodedByValueAreExactOnIntegers) {
  Random random(39);
  const auto expect = [&](const HostMatrix& m, int rows, int cols, const char* what) {
    DeviceWeights memory;
    EXPECT_TRUE(is_decoded_by_value(m.upload(memory))) << what;
    for (const int n : sizes({1, 33, 70}, {33})) expect_gemm(m, rows, cols, n, true, random, what);
  };
  expect(dense(WeightType::kBf16, 7, 37, true, random), 7, 37, "bf16");
  expect(dense(WeightType::kBf16, 130, 201, true, random), 130, 201, "bf16");
  expect(dense(WeightType::kF16, 5, 37, true, random), 5, 37, "f16");
  expect(dense(WeightType::kF32, 3, 1, true, random), 3, 1, "f32");
  expect(vq(6, 300, 5, 48, 24, true, random), 5, 48, "vq of 6");
  expect(vq(4, 256, 5, 44, 12, true, random), 5, 44, "vq of 4");
  expect(of_two_books(9, 72, 24, random), 9, 72, "two books");
  expect(gptq(4, 9, 40, 20, true, random), 9, 40, "gptq4");
  expect(gptq(8, 9, 44, 44, true, random), 9, 44, "gptq8");
  expect(fp8_eighths(13, 26, 8, random), 13, 26, "fp8");
}

TEST_F(Cuda, GemmsOfEveryKindOfMatrixStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  expect_gemm(dense(WeightType::kBf16, 257, 2048, false, random), 257, 2048, 70, false, random,
              "bf16");
  expect_gemm(dense(WeightType::kF16, 65, 320, false, random), 65, 320, 40, false, random, "f16");
  expect_gemm(dense(WeightType::kF32, 65, 320, false, random), 65, 320, 40, false, random, "f32");
  for (const auto& [dim, codes] : {std::pair{8, 256}, {8, 4096}, {4, 256}, {4, 4096}, {8, 200}})
    expect_gemm(vq(dim, codes, 200, 1024, 128, false, random), 200, 1024, 70, false, random, "vq");
  expect_gemm(gptq(4, 96, 1024, 128, false, random), 96, 1024, 70, false, random, "gptq4");
  expect_gemm(gptq(8, 96, 320, 32, false, random), 96, 320, 70, false, random, "gptq8");
  expect_gemm(fp8(130, 264, 128, random), 130, 264, 70, false, random, "fp8");
}

// One row, tiles that are not filled, columns in eights that fill no stage, and matrices that no
// eight columns of which lie together.
TEST_F(Cuda, GemmsOfOddShapesStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (const int n : {1, 2, 31, 65, 129}) {
    expect_gemm(dense(WeightType::kBf16, 1, 8, false, random), 1, 8, n, false, random, "bf16");
    expect_gemm(dense(WeightType::kBf16, 129, 72, false, random), 129, 72, n, false, random,
                "bf16");
    expect_gemm(dense(WeightType::kBf16, 7, 37, false, random), 7, 37, n, false, random, "bf16");
    expect_gemm(dense(WeightType::kF32, 3, 1, false, random), 3, 1, n, false, random, "f32");
    expect_gemm(vq(4, 3000, 33, 40, 24, false, random), 33, 40, n, false, random, "vq");
    expect_gemm(vq(6, 300, 5, 48, 24, false, random), 5, 48, n, false, random, "vq of 6");
    expect_gemm(vq(4, 256, 5, 44, 12, false, random), 5, 44, n, false, random, "vq of 4");
    expect_gemm(gptq(8, 9, 44, 44, false, random), 9, 44, n, false, random, "gptq8");
    expect_gemm(fp8(13, 26, 8, random), 13, 26, n, false, random, "fp8");
  }
  for (int i = 0; i < 8; ++i) {  // and any shapes
    const int n = 1 + random.below(140), rows = 1 + random.below(200), eighths = random.below(5);
    expect_gemm(dense(WeightType::kBf16, rows, 1 + 67 * eighths, false, random), rows,
                1 + 67 * eighths, n, false, random, "any bf16");
    const int cols = 32 * (1 + random.below(9));
    expect_gemm(vq(4 + 4 * random.below(2), 256, rows, cols, 32, false, random), rows, cols, n,
                false, random, "any vq");
    expect_gemm(gptq(4 + 4 * random.below(2), rows, cols, 32, false, random), rows, cols, n, false,
                random, "any gptq");
  }
}

// How codes lie in memory is no matter of their product's.
TEST_F(Cuda, AGemmOfUnitsHasTheBitsOfRows) {
  Random random(35);
  constexpr int kTokens = 40;
  for (const auto& [dim, codes, bits] : {std::tuple{8, 256, 8},
                                         {4, 200, 8},
                                         {8, 4096, 12},
                                         {8, 4096, 13},
                                         {4, 4096, 12},
                                         {4, 4096, 13},
                                         {4, 3000, 14}})
    for (const auto& [rows, cols, group] : {std::tuple{130, 320, 64}, {33, 1096, 128}}) {
      DeviceWeights memory;
      const HostMatrix m = vq(dim, codes, rows, cols, group, false, random);
      const auto x = on_device(random.floats(area(kTokens, cols)), kTokens, cols);
      const auto multiply = [&](const DeviceMatrix& d) {
        const auto y = poisoned(area(kTokens, rows));
        gemm_cuda(d, x.data(), kTokens, y.data(), rows, false, {}, nullptr);
        return y.host();
      };
      EXPECT_EQ(multiply(m.upload(memory, {dim, bits, group == 64 ? 8 : 4})),
                multiply(m.upload(memory)))
          << dim << ", " << bits << " bits, " << cols << " columns";
    }
}

// Decoded once for all tiles, whole or a slab at a time, or again for every tile.
TEST_F(Cuda, AMatrixThatIsDecodedAtOnceHasTheSameBits) {
  Random random(36);
  constexpr int kRows = 1100, kCols = 512;  // no whole number of slabs
  DeviceWeights memory;
  for (const HostMatrix& host :
       {gptq(4, kRows, kCols, 128, false, random), gptq(8, kRows, kCols, 64, false, random),
        gptq(8, kRows, kCols, 256, false, random), fp8(kRows, kCols, 128, random)}) {
    const DeviceMatrix m = host.upload(memory);
    EXPECT_EQ(decode_room(m), area(kRows, kCols));
    for (const int n : sizes({1, 32, 150}, {150})) {
      const auto x = on_device(random.floats(area(n, kCols)), n, kCols);
      const std::vector<float> before = random.floats(area(n, kRows));
      const auto products = [&](std::size_t n_values) {
        const DeviceArray<Bf16> values(std::max<std::size_t>(1, n_values));
        const DecodeRoom room{values.data(), n_values};
        const auto y = poisoned(area(n, kRows));
        const DeviceArray<float> sum(before);
        const DeviceArray<Bf16> h(std::vector<Bf16>(area(n, bf16_stride(kRows)), 0x7FC0));
        gemm_cuda(m, x.data(), n, y.data(), kRows, false, room, nullptr);
        gemm_cuda(m, x.data(), n, sum.data(), kRows, true, room, nullptr);
        gemm_swiglu_cuda(m, m, x.data(), n, h.data(), room, nullptr);
        return std::tuple{y.host(), sum.host(), h.host()};
      };
      const auto by_tile = products(0);
      EXPECT_FALSE(std::isnan(std::get<0>(by_tile).back()));
      for (const std::size_t n_values :
           sizes({2 * area(kRows, kCols), area(kRows, kCols), area(300, kCols), area(128, kCols)},
                 {2 * area(kRows, kCols), area(300, kCols)}))
        EXPECT_EQ(products(n_values), by_tile) << n << " rows of x, room of " << n_values;
    }
  }
}

std::vector<float> gemm_rows(const DeviceMatrix& m, const std::vector<float>& x, int first, int n) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(area(first, m.n_cols));
  const auto dx =
      on_device({begin, begin + static_cast<std::ptrdiff_t>(area(n, m.n_cols))}, n, m.n_cols);
  const auto y = poisoned(area(n, m.n_rows));
  gemm_cuda(m, dx.data(), n, y.data(), m.n_rows, false, {}, nullptr);
  return y.host();
}

// 384 rows of 8192 results are tiles of 128 rows (codes: 64) on any GPU of fewer than 192
// multiprocessors, one row is a tile of 32, and what is between, between.
TEST_F(Cuda, ARowsBitsDependOnNoOtherRowAndOnNoTile) {
  Random random(34);
  DeviceWeights memory;
  constexpr int kRows = 8192, kTokens = 384;
  for (const HostMatrix& host : {dense(WeightType::kBf16, kRows, 200, false, random),
                                 vq(8, 256, kRows, 200, 40, false, random)}) {
    const DeviceMatrix m = host.upload(memory);
    const std::vector<float> x = random.floats(area(kTokens, m.n_cols));
    const std::vector<float> all = gemm_rows(m, x, 0, kTokens);
    for (const auto& [first, n] :
         {std::pair{0, 1}, {77, 1}, {383, 1}, {3, 40}, {100, 100}, {100, 130}, {1, 383}}) {
      const std::vector<float> some = gemm_rows(m, x, first, n);
      EXPECT_TRUE(std::equal(some.begin(), some.end(),
                             all.begin() + static_cast<std::ptrdiff_t>(area(first, kRows))))
          << first << ", " << n << " rows";
    }
  }
}

TEST_F(Cuda, ExpertsOnTensorCoresStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (const auto& kinds : std::vector<std::vector<MakeMatrix>>{
           {a_bf16}, {a_vq8}, {a_vq4}, {a_vq8, a_bf16, a_gptq, a_vq4}}) {
    ExpertLayer l = expert_layer(136, 72, 9, 3, 50, random);
    add_experts(l, 9, kinds, random);
    expect_experts(l, false, "experts");
  }
}

// Experts of 75 and 45 rows on average and so many columns of results that tiles of 128 and of 64
// rows are chosen on any GPU of up to 136 multiprocessors: of gate and up, then of down.
TEST_F(Cuda, ExpertsOnTensorCoresStayWithinTheRoundingBoundInEveryTile) {
  Random random(fresh_seed());
  for (const int n_tokens : {150, 90})
    for (const auto& [hidden, width] : {std::pair{8, 2120}, {4240, 8}})
      for (const MakeMatrix kind : {a_bf16, a_vq8}) {
        ExpertLayer l = expert_layer(hidden, width, 4, 2, n_tokens, random);
        add_experts(l, 4, {kind}, random);
        expect_experts(l, false, kind == a_bf16 ? "bf16 in wide tiles" : "vq in wide tiles");
      }
}

// Some experts nobody chose, wherever they are, and one that all did.
TEST_F(Cuda, ExpertsOfAnyShapeOnTensorCoresStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (int i = 0; i < 6; ++i) {
    const int eight = i % 3 == 0 ? 1 : 8;  // bf16 may have any columns
    const int hidden = eight * (1 + random.below(160 / eight)),
              width = eight * (1 + random.below(96 / eight));
    const int n_chosen = 1 + random.below(30), n_experts = n_chosen + 1 + random.below(20),
              top_k = 1 + random.below(std::min(4, n_chosen)), n_tokens = 1 + random.below(150);
    ExpertLayer l = expert_layer(hidden, width, n_chosen, top_k, n_tokens, random);
    std::vector<int> ids(static_cast<std::size_t>(n_experts));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random.rng);
    std::sort(ids.begin(), ids.begin() + n_chosen);
    const int of_all = random.below(n_chosen);
    for (int t = 0; t < n_tokens; ++t) {
      const auto first = l.expert.begin() + t * top_k, last = first + top_k;
      if (std::find(first, last, of_all) == last) *first = of_all;
      std::sort(first, last);
      for (auto e = first; e != last; ++e) *e = ids[static_cast<std::size_t>(*e)];
    }
    if (i % 3 < 2)
      add_experts(l, n_experts, {a_bf16}, random);
    else
      add_experts(l, n_experts, {a_vq8, a_bf16, a_gptq, a_vq4}, random);
    expect_experts(
        l, false,
        (std::to_string(hidden) + " x " + std::to_string(width) + ", " + std::to_string(n_tokens) +
         " tokens, " + std::to_string(top_k) + " of " + std::to_string(n_experts))
            .c_str());
  }
}

TEST_F(Cuda, ExpertsOnTensorCoresMayBeChosenByAllOrByNone) {
  Random random(36);
  // Forty experts, past a warp's lanes, most of them chosen by nobody; then one for all tokens.
  for (const auto& [n_chosen, top_k, n_tokens] : sizes<std::tuple<int, int, int>>(
           {{40, 2, 6}, {1, 1, 200}, {2, 2, 131}, {40, 4, 1}, {3, 1, 70}}, {{3, 1, 70}})) {
    ExpertLayer l = expert_layer(72, 40, n_chosen, top_k, n_tokens, random);
    add_experts(l, 40, {a_vq8, a_bf16}, random);
    // The last experts, so that those before have no rows.
    if (n_chosen < 40)
      for (int& e : l.expert) e += 40 - n_chosen;
    expect_experts(l, false, "few experts");
  }
}

// Gates and ups are integers above 100, whose silu is itself in float32, their product rounded to
// bfloat16 is a multiple of 64, and all sums of those are below 2^24 times that.
TEST_F(Cuda, ExpertsOnTensorCoresAreExactOnIntegers) {
  Random random(37);
  ExpertLayer l = expert_layer(320, 96, 5, 2, 40, random);
  for (float& v : l.x) v = static_cast<float>(1 + random.below(2));
  for (float& v : l.weight) v = static_cast<float>(1 + random.below(2));
  for (auto* v : {&l.shared, &l.residual})
    for (float& f : *v) f = static_cast<float>(64 * (1 + random.below(2)));
  for (int e = 0; e < 5; ++e)
    for (int p = 0; p < 3; ++p) {
      HostMatrix m =
          p < 2 ? vq(8, 256, 96, 320, 64, false, random) : vq(4, 256, 320, 96, 32, false, random);
      for (float& v : m.codebook) v = static_cast<float>(random.below(2));
      m.scales = bytes_of(std::vector<std::uint16_t>(m.scales.size() / 2, to_half(1.0f)));
      m.vq.scales = m.scales.data();
      l.host.push_back(std::move(m));
      l.host.back().vq.codebook = l.host.back().codebook.data();
    }
  expect_experts(l, true, "integers");
}

TEST_F(Cuda, ATokensExpertsHaveTheBitsTheyHaveAlone) {
  Random random(38);
  for (const auto& kinds : std::vector<std::vector<MakeMatrix>>{{a_bf16}, {a_vq8, a_vq4, a_gptq}}) {
    ExpertLayer l = expert_layer(136, 72, 4, 2, 90, random);
    add_experts(l, 4, kinds, random);
    const std::vector<float> all = run_experts(l);
    for (const int t : {0, 1, 44, 89}) {
      ExpertLayer one = l;
      const auto part = [&](auto& v, int width) {
        v = {v.begin() + t * width, v.begin() + (t + 1) * width};
      };
      part(one.expert, l.top_k), part(one.weight, l.top_k), part(one.x, l.hidden);
      part(one.shared, l.hidden), part(one.residual, l.hidden);
      EXPECT_EQ(run_experts(one),
                std::vector<float>(all.begin() + t * l.hidden, all.begin() + (t + 1) * l.hidden));
    }
  }
}

}  // namespace
}  // namespace assay::kernels
