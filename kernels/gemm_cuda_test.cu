// Products on tensor cores against sums in double precision of the operands rounded to bfloat16:
// every kind of matrix, exact on integers, within a bound, at edges, and the same bits whatever the
// batch. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/bf16_weights.cuh"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/gemm_cuda.h"

namespace assay::kernels {
namespace {

double rounded(double v) {
  return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(v))));
}

std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

// Rounded; what lies between a row's end and the next is NaN.
DeviceArray<Bf16> on_device(const std::vector<float>& x, int n_rows, int n_cols) {
  DeviceArray<Bf16> out(std::vector<Bf16>(area(n_rows, bf16_stride(n_cols)), 0x7FC0));
  const DeviceArray<float> dx(x);
  to_bf16_cuda(dx.data(), n_cols, n_rows, n_cols, out.data(), nullptr);
  return out;
}

// Tensor cores add 16 products and the sum so far at once, in no known order, and cut off what is
// below 2^-23 of the largest: 17 such errors for 16 columns, so at most (n_cols + 16) · 2^-22 of
// the sizes with room for the last roundings. Operands are rounded before: exactly as here.
double sum_error(int n_cols, double sum_abs) { return (n_cols + 16) * 0x1p-22 * sum_abs; }

std::vector<double> rounded_weights(const HostMatrix& m, int n_rows, int n_cols) {
  std::vector<double> w;
  for (int r = 0; r < n_rows; ++r)
    for (int c = 0; c < n_cols; ++c) w.push_back(rounded(m.at(r, c)));
  return w;
}

void expect_gemm(const HostMatrix& m, int rows, int cols, int n_tokens, bool exact, Random& random,
                 const char* what) {
  DeviceWeights memory;
  const DeviceMatrix d = m.upload(memory);
  const std::vector<float> x = random.floats(area(n_tokens, cols), exact),
                           before = random.floats(area(n_tokens, rows), exact);
  const std::vector<double> w = rounded_weights(m, rows, cols);
  std::vector<double> rounded_x;
  for (const float v : x) rounded_x.push_back(rounded(static_cast<double>(v)));
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

// Values 1 to 1.875 in steps of 1/8, scale 1: their sums are exact in float32.
HostMatrix fp8_eighths(int rows, int cols, Random& random) {
  HostMatrix m = fp8(rows, cols, 128, random);
  for (std::byte& b : m.values) b = static_cast<std::byte>(0x38 + random.below(8));
  m.scales = bytes_of(std::vector<float>(m.scales.size() / 4, 1.0f));
  m.scaled.values = m.values.data();
  m.scaled.scales = m.scales.data();
  return m;
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
    expect_gemm(fp8_eighths(70, 264, random), 70, 264, n, true, random, "fp8");
  }
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

// A layer's experts, and what a token's chosen ones make of it in double precision of rounded
// operands.
struct ExpertLayer {
  std::vector<HostMatrix> host;  // (n_experts, 3)
  int hidden, width, top_k;
  std::vector<int> expert;
  std::vector<float> weight, x, shared, residual;

  int n_experts() const { return static_cast<int>(host.size()) / 3; }
  int n_tokens() const { return static_cast<int>(expert.size()) / top_k; }
};

std::vector<float> run_experts(const ExpertLayer& l) {
  DeviceWeights memory;
  std::vector<DeviceMatrix> experts;
  for (const HostMatrix& m : l.host) experts.push_back(m.upload(memory));
  const DeviceArray<DeviceMatrix> d_experts(experts);
  const DeviceArray<int> expert(l.expert);
  const DeviceArray<float> weight(l.weight), shared(l.shared), residual(l.residual);
  const auto x = on_device(l.x, l.n_tokens(), l.hidden);
  const std::size_t n_slots = l.expert.size();
  const DeviceArray<int> order(std::vector<int>(n_slots, -1)),
      first(std::vector<int>(static_cast<std::size_t>(l.n_experts() + 1), -1));
  const DeviceArray<Bf16> h(
      std::vector<Bf16>(n_slots * static_cast<std::size_t>(bf16_stride(l.width)), 0x7FC0));
  const auto y = poisoned(n_slots * static_cast<std::size_t>(l.hidden));
  moe_gemm_cuda({.experts = d_experts.data(),
                 .n_experts = l.n_experts(),
                 .all_copied = std::all_of(experts.begin(), experts.end(), is_copied),
                 .expert = expert.data(),
                 .weight = weight.data(),
                 .n_tokens = l.n_tokens(),
                 .top_k = l.top_k,
                 .hidden = l.hidden,
                 .width = l.width,
                 .x = x.data(),
                 .order = order.data(),
                 .first = first.data(),
                 .h = h.data(),
                 .y = y.data(),
                 .shared = shared.data(),
                 .residual = residual.data()},
                nullptr);
  return residual.host();
}

// n values of silu(gate x) · up x, unrounded, and how far each may be off before it is used.
struct Hidden {
  std::vector<double> value, error;
};
Hidden hidden_of(const ExpertLayer& l, const std::vector<double>& gate,
                 const std::vector<double>& up, int token) {
  Hidden h;
  for (int i = 0; i < l.width; ++i) {
    double g = 0, u = 0, g_size = 0, u_size = 0;
    for (int c = 0; c < l.hidden; ++c) {
      const auto at = area(i, l.hidden) + static_cast<std::size_t>(c);
      const double v =
          rounded(static_cast<double>(l.x[area(token, l.hidden) + static_cast<std::size_t>(c)]));
      g += gate[at] * v, u += up[at] * v;
      g_size += std::abs(gate[at] * v), u_size += std::abs(up[at] * v);
    }
    const double s = g / (1 + std::exp(-g));
    const double g_error = sum_error(l.hidden, g_size), u_error = sum_error(l.hidden, u_size);
    h.value.push_back(s * u);
    // silu is nowhere steeper than 1.1; eight float32 roundings; then one to bfloat16.
    const double error = 1.1 * g_error * (std::abs(u) + u_error) + std::abs(s) * u_error +
                         8 * 0x1p-24 * std::abs(s * u);
    h.error.push_back(error + 0x1p-8 * (std::abs(s * u) + error));
  }
  return h;
}

void expect_experts(const ExpertLayer& l, bool exact, const char* what) {
  const std::vector<float> out = run_experts(l);
  std::map<int, std::vector<double>> weights;
  for (const int e : std::set<int>(l.expert.begin(), l.expert.end()))
    for (int p = 0; p < 3; ++p)
      weights[3 * e + p] = rounded_weights(l.host[static_cast<std::size_t>(3 * e + p)],
                                           p < 2 ? l.width : l.hidden, p < 2 ? l.hidden : l.width);
  double worst = 0;
  for (int t = 0; t < l.n_tokens(); ++t) {
    std::vector<Hidden> hidden;
    for (int k = 0; k < l.top_k; ++k) {
      const int e = l.expert[static_cast<std::size_t>(t * l.top_k + k)];
      hidden.push_back(hidden_of(l, weights[3 * e], weights[3 * e + 1], t));
    }
    for (int r = 0; r < l.hidden; ++r) {
      const std::size_t at = area(t, l.hidden) + static_cast<std::size_t>(r);
      double sum = static_cast<double>(l.residual[at]) + static_cast<double>(l.shared[at]);
      double size = std::abs(static_cast<double>(l.residual[at])) +
                    std::abs(static_cast<double>(l.shared[at])),
             error = 0;
      for (int k = 0; k < l.top_k; ++k) {
        const auto slot = static_cast<std::size_t>(t * l.top_k + k);
        const std::vector<double>& down = weights[3 * l.expert[slot] + 2];
        const auto weight = static_cast<double>(l.weight[slot]);
        for (int i = 0; i < l.width; ++i) {
          const double d = weight * down[area(r, l.width) + static_cast<std::size_t>(i)];
          const auto j = static_cast<std::size_t>(i);
          sum += d * (exact ? rounded(hidden[static_cast<std::size_t>(k)].value[j])
                            : hidden[static_cast<std::size_t>(k)].value[j]);
          size += std::abs(d * hidden[static_cast<std::size_t>(k)].value[j]);
          error += std::abs(d) * hidden[static_cast<std::size_t>(k)].error[j];
        }
      }
      const double bound =
          exact ? 0 : error + sum_error(l.width, size + error) + (l.top_k + 3) * 0x1p-24 * size;
      const double delta = std::abs(static_cast<double>(out[at]) - sum);
      ASSERT_LE(delta, bound) << what << ": token " << t << ", " << r;
      if (bound > 0) worst = std::max(worst, delta / bound);
    }
  }
  std::printf("%-24s worst error %.2g of its bound\n", what, worst);
}

// Tokens choose among the first n_chosen experts.
ExpertLayer expert_layer(int hidden, int width, int n_chosen, int top_k, int n_tokens,
                         Random& random) {
  ExpertLayer l{.host = {}, .hidden = hidden, .width = width, .top_k = top_k};
  for (int t = 0; t < n_tokens; ++t) {
    std::set<int> chosen;
    while (static_cast<int>(chosen.size()) < top_k) chosen.insert(random.below(n_chosen));
    l.expert.insert(l.expert.end(), chosen.begin(), chosen.end());
  }
  l.weight = random.floats(l.expert.size());
  l.x = random.floats(area(n_tokens, hidden));
  l.shared = random.floats(area(n_tokens, hidden));
  l.residual = random.floats(area(n_tokens, hidden));
  return l;
}

using MakeMatrix = HostMatrix (*)(int rows, int cols, Random& random);
void add_experts(ExpertLayer& l, int n, const std::vector<MakeMatrix>& kinds, Random& random) {
  std::size_t kind = 0;
  for (int e = 0; e < n; ++e)
    for (int p = 0; p < 3; ++p)
      l.host.push_back(kinds[kind++ % kinds.size()](p < 2 ? l.width : l.hidden,
                                                    p < 2 ? l.hidden : l.width, random));
}
HostMatrix a_bf16(int rows, int cols, Random& r) {
  return dense(WeightType::kBf16, rows, cols, false, r);
}
HostMatrix a_vq8(int rows, int cols, Random& r) { return vq(8, 256, rows, cols, 64, false, r); }
HostMatrix a_vq4(int rows, int cols, Random& r) { return vq(4, 4096, rows, cols, 64, false, r); }
HostMatrix a_gptq(int rows, int cols, Random& r) { return gptq(4, rows, cols, 32, false, r); }

TEST_F(Cuda, ExpertsOnTensorCoresStayWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (const auto& kinds : std::vector<std::vector<MakeMatrix>>{
           {a_bf16}, {a_vq8}, {a_vq4}, {a_vq8, a_bf16, a_gptq, a_vq4}}) {
    ExpertLayer l = expert_layer(136, 72, 9, 3, 50, random);
    add_experts(l, 9, kinds, random);
    expect_experts(l, false, "experts");
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
