// What a NaN or an infinity reaches in products on tensor cores, and how every edge of float32 is
// rounded to bfloat16. Need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/fresh_seed_testing.h"
#include "kernels/gemm_testing.cuh"

namespace assay::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                kInfinity = std::numeric_limits<float>::infinity();

// Of (n_rows, n_cols) where is_touched(row, col) holds: no number; elsewhere: the bits there were.
void expect_touched(const std::vector<float>& clean, const std::vector<float>& got, int n_cols,
                    const std::function<bool(int, int)>& is_touched, const std::string& what) {
  ASSERT_EQ(got.size(), clean.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const int row = static_cast<int>(i) / n_cols, col = static_cast<int>(i) % n_cols;
    ASSERT_TRUE(std::isfinite(clean[i])) << what << ": " << row << ", " << col;
    if (is_touched(row, col))
      ASSERT_FALSE(std::isfinite(got[i])) << what << ": " << row << ", " << col;
    else
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(clean[i]))
          << what << ": " << row << ", " << col;
  }
}

struct Products {
  std::vector<float> y, sum, h;  // (n_tokens, rows)
};
// With room for both matrices, where they are decoded at once.
Products products_of(const HostMatrix& gate, const HostMatrix& up, const std::vector<float>& x,
                     int n_tokens) {
  DeviceWeights memory;
  const DeviceMatrix g = gate.upload(memory), u = up.upload(memory);
  const auto dx = on_device(x, n_tokens, g.n_cols);
  const int stride = bf16_stride(g.n_rows);
  const auto y = poisoned(area(n_tokens, g.n_rows));
  const DeviceArray<float> sum(std::vector<float>(area(n_tokens, g.n_rows), 1));
  const DeviceArray<Bf16> dh(std::vector<Bf16>(area(n_tokens, stride), kBf16Nan)),
      values(std::max<std::size_t>(1, decode_room(g, u)));
  const DecodeRoom room{values.data(), decode_room(g, u)};
  gemm_cuda(g, dx.data(), n_tokens, y.data(), g.n_rows, false, room, nullptr);
  gemm_cuda(u, dx.data(), n_tokens, sum.data(), g.n_rows, true, room, nullptr);
  gemm_swiglu_cuda(g, u, dx.data(), n_tokens, dh.data(), room, nullptr);
  const std::vector<Bf16> h = dh.host();
  Products out{y.host(), sum.host(), {}};
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < g.n_rows; ++r)
      out.h.push_back(bf16_to_f32(h[area(t, stride) + static_cast<std::size_t>(r)]));
  return out;
}

struct Pair {
  const char* what;
  int rows, cols;
  HostMatrix gate, up;
};
std::vector<Pair> pairs(Random& random) {
  std::vector<Pair> out;
  const auto add = [&](const char* what, int rows, int cols, auto make) {
    out.push_back({what, rows, cols, make(rows, cols), make(rows, cols)});
  };
  const auto bf16 = [&](int r, int c) { return dense(WeightType::kBf16, r, c, false, random); };
  add("bf16", 130, 72, bf16);
  add("bf16 by value", 7, 37, bf16);
  add("vq", 67, 136, [&](int r, int c) { return vq(8, 256, r, c, 136, false, random); });
  add("gptq4", 67, 128, [&](int r, int c) { return gptq(4, r, c, 128, false, random); });
  add("gptq8", 9, 64, [&](int r, int c) { return gptq(8, r, c, 64, false, random); });
  add("fp8", 67, 136, [&](int r, int c) { return fp8(r, c, 64, random); });
  return out;
}

// Rows of x in every place of a tile: its first, its last, and the last of all, which those past it
// repeat.
TEST_F(Cuda, ANanOrInfinityInARowOfXReachesThatRowOfAGemmAlone) {
  Random random(54);
  constexpr int kTokens = 70;
  for (const Pair& m : pairs(random)) {
    std::vector<float> x = random.floats(area(kTokens, m.cols));
    const Products clean = products_of(m.gate, m.up, x, kTokens);
    x[0] = kNan;
    x[area(32, m.cols) - 1] = kInfinity;  // row 31
    x[area(40, m.cols)] = -kInfinity;
    x[area(kTokens, m.cols) - 1] = kNan;
    const Products got = products_of(m.gate, m.up, x, kTokens);
    const auto touched = [](int t, int) { return t == 0 || t == 31 || t == 40 || t == 69; };
    expect_touched(clean.y, got.y, m.rows, touched, m.what);
    expect_touched(clean.sum, got.sum, m.rows, touched, std::string(m.what) + ", added");
    expect_touched(clean.h, got.h, m.rows, touched, std::string(m.what) + ", swiglu");
  }
}

// One weight, or what is scaled with it, of a matrix's row.
void put_nan(HostMatrix& m, int row) {
  const auto put = [](std::vector<std::byte>& to, int i, std::uint16_t bits) {
    std::memcpy(to.data() + static_cast<std::ptrdiff_t>(i) * 2, &bits, 2);
  };
  constexpr std::uint16_t kHalfNan = 0x7E00;
  if (m.kind == HostMatrix::Kind::kDense)
    put(m.values, row * m.dense.n_cols + 3, kBf16Nan);
  else if (m.kind == HostMatrix::Kind::kVq)
    put(m.scales, row * m.vq.n_groups(), kHalfNan);
  else if (m.scaled.kind == ScaledMatrix::Kind::kFp8E4m3)
    m.values[area(row, m.scaled.n_cols) + 3] = std::byte{0x7F};
  else
    put(m.scales, row, kHalfNan);  // (n_groups, n_rows)
}

// The last row too, which a tile's rows past it repeat.
TEST_F(Cuda, ANanInARowOfWeightsReachesThatColumnOfAGemmAlone) {
  Random random(55);
  constexpr int kTokens = 33;
  for (Pair& m : pairs(random)) {
    const std::vector<float> x = random.floats(area(kTokens, m.cols));
    const Products clean = products_of(m.gate, m.up, x, kTokens);
    const int last = m.rows - 1;
    put_nan(m.gate, 5);
    put_nan(m.up, last);
    const Products got = products_of(m.gate, m.up, x, kTokens);
    expect_touched(
        clean.y, got.y, m.rows, [](int, int r) { return r == 5; }, m.what);
    expect_touched(
        clean.sum, got.sum, m.rows, [=](int, int r) { return r == last; },
        std::string(m.what) + ", added");
    expect_touched(
        clean.h, got.h, m.rows, [=](int, int r) { return r == 5 || r == last; },
        std::string(m.what) + ", swiglu");
  }
}

struct LayerShape {
  int hidden, width;
  std::vector<MakeMatrix> kinds;
};
std::vector<LayerShape> layer_shapes() {
  return {{136, 72, {a_bf16}}, {136, 72, {a_vq8, a_vq4, a_gptq}}, {37, 9, {a_bf16}}};
}

TEST_F(Cuda, ANanOrInfinityInATokensXReachesItsExpertsResultAlone) {
  Random random(56);
  for (const auto& [hidden, width, kinds] : layer_shapes()) {
    ExpertLayer l = expert_layer(hidden, width, 4, 2, 90, random);
    add_experts(l, 4, kinds, random);
    const std::vector<float> clean = run_experts(l);
    l.x[5] = kNan;
    l.x[area(45, hidden) - 1] = kInfinity;  // token 44
    l.x[area(89, hidden)] = kNan;
    expect_touched(
        clean, run_experts(l), hidden, [](int t, int) { return t == 0 || t == 44 || t == 89; },
        std::to_string(hidden) + " columns");
  }
}

// Experts 1 and 2 have one each, in down and in gate; experts 0 and 5, which nobody chose, too.
TEST_F(Cuda, ANanInAnExpertsWeightsReachesThoseWhoChoseItAlone) {
  Random random(57);
  for (const auto& [hidden, width, kinds] : layer_shapes()) {
    ExpertLayer l = expert_layer(hidden, width, 4, 2, 90, random);
    for (int& e : l.expert) ++e;
    add_experts(l, 6, kinds, random);
    const std::vector<float> clean = run_experts(l);
    constexpr int kOfDown = 7;
    put_nan(l.host[3 * 0 + 1], 0);
    put_nan(l.host[3 * 1 + 2], kOfDown);
    put_nan(l.host[3 * 2 + 0], width - 1);
    put_nan(l.host[3 * 5 + 2], 3);
    const auto chose = [&](int t, int e) {
      const auto first = l.expert.begin() + t * l.top_k;
      return std::find(first, first + l.top_k, e) != first + l.top_k;
    };
    expect_touched(
        clean, run_experts(l), hidden,
        [&](int t, int r) { return chose(t, 2) || (chose(t, 1) && r == kOfDown); },
        std::to_string(hidden) + " columns");
  }
}

struct Edge {
  std::uint32_t f32;
  Bf16 bf16;
};
// To nearest, ties to even; what is no longer finite is infinite, and nothing is flushed to zero.
constexpr Edge kEdges[] = {
    {0x00000000, 0x0000}, {0x00000001, 0x0000}, {0x00007FFF, 0x0000}, {0x00008000, 0x0000},
    {0x00008001, 0x0001}, {0x00010000, 0x0001}, {0x00017FFF, 0x0001}, {0x00018000, 0x0002},
    {0x007F0000, 0x007F}, {0x007F7FFF, 0x007F}, {0x007F8000, 0x0080}, {0x007FFFFF, 0x0080},
    {0x00800000, 0x0080}, {0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F808001, 0x3F81},
    {0x3F817FFF, 0x3F81}, {0x3F818000, 0x3F82}, {0x3FFF8000, 0x4000}, {0x7F7F0000, 0x7F7F},
    {0x7F7F7FFF, 0x7F7F}, {0x7F7F8000, 0x7F80}, {0x7F7FFFFF, 0x7F80}, {0x7F800000, 0x7F80},
    {0x7F800001, 0x7FFF}, {0x7FC00000, 0x7FFF}, {0x7FFFFFFF, 0x7FFF}};

bool is_nan(Bf16 v) { return (v & 0x7FFF) > 0x7F80; }

// Of either sign, in either half of a pair; among them any bits, as the host rounds them.
TEST_F(Cuda, RoundingToBf16IsToNearestEvenAtEveryEdge) {
  Random random(fresh_seed());
  constexpr int kRows = 3;
  std::size_t n_drawn = 0;
  for (const int cols : {1, 2, 37, 64, 513, 1030}) {
    const int stride = cols + random.below(4), out_stride = bf16_stride(cols);
    // No value more than there are: nothing past the last is read. Between rows: no such value.
    std::vector<float> x(area(kRows - 1, stride) + static_cast<std::size_t>(cols), 0x1p100f);
    std::vector<Bf16> expected;
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < cols; ++c) {
        const Edge& edge = kEdges[n_drawn++ % std::size(kEdges)];
        const bool negative = random.below(2) == 1, any = random.below(4) == 0;
        const std::uint32_t bits = any ? static_cast<std::uint32_t>(random.rng())
                                       : edge.f32 | (negative ? 0x80000000u : 0u);
        const auto value = std::bit_cast<float>(bits);
        x[area(r, stride) + static_cast<std::size_t>(c)] = value;
        expected.push_back(any ? bf16_bits(value)
                               : static_cast<Bf16>(edge.bf16 | (negative ? 0x8000u : 0u)));
      }
    constexpr Bf16 kUntouched = 0x1234;
    const DeviceArray<float> dx(x);
    const DeviceArray<Bf16> out(std::vector<Bf16>(area(kRows + 1, out_stride), kUntouched));
    to_bf16_cuda(dx.data(), stride, kRows, cols, out.data(), nullptr);
    const std::vector<Bf16> got = out.host();
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < cols; ++c) {
        const Bf16 value = got[area(r, out_stride) + static_cast<std::size_t>(c)],
                   wanted = expected[area(r, cols) + static_cast<std::size_t>(c)];
        ASSERT_TRUE(value == wanted || (is_nan(value) && is_nan(wanted)))
            << std::hex << value << ", expected " << wanted << " of "
            << std::bit_cast<std::uint32_t>(x[area(r, stride) + static_cast<std::size_t>(c)])
            << std::dec << ": row " << r << ", column " << c << " of " << cols;
      }
    EXPECT_TRUE(std::all_of(got.end() - out_stride, got.end(), [](Bf16 v) {
      return v == kUntouched;
    })) << cols;
  }
}

}  // namespace
}  // namespace assay::kernels
