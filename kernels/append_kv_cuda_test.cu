// The cache rows that append_kv_cuda writes, of tokens in any order and of several caches: exact on
// integers, past what a half holds, within their bound, and at edges. What a row's bits depend on
// is mla_attention_cuda_test's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/fresh_seed_testing.h"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_testing.cuh"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace assay::kernels {
namespace {

using Halves = std::vector<std::uint16_t>;

constexpr std::uint16_t kUnwritten = 0x7D55;  // a NaN that no conversion makes

// Tokens with a row of their own each, anywhere in one of several caches, which lie one behind the
// other.
struct Tokens {
  int lora, rope, n_rows, n_caches, n_positions;
  bool interleaved;
  std::vector<float> in, weight, cosine, sine;
  std::vector<int> slot;  // of each token: of all caches' positions
  float eps = 1e-6f;

  Tokens(int lora_, int rope_, int n_rows_, bool interleaved_, Random& random)
      : lora(lora_),
        rope(rope_),
        n_rows(n_rows_),
        n_caches(1 + random.below(3)),
        n_positions(n_rows_ + random.below(4)),
        interleaved(interleaved_),
        in(random.floats(static_cast<std::size_t>(n_rows * width()))),
        weight(random.floats(static_cast<std::size_t>(lora))),
        cosine(static_cast<std::size_t>(n_rows * rope / 2)),
        sine(cosine.size()) {
    const RopeTable table(1e6, rope);
    for (int r = 0; r < n_rows; ++r)
      table.angles(r + 1000, &cosine[static_cast<std::size_t>(r * rope / 2)],
                   &sine[static_cast<std::size_t>(r * rope / 2)]);
    for (int i = 0; i < n_caches * n_positions; ++i) slot.push_back(i);
    std::shuffle(slot.begin(), slot.end(), random.rng);
    slot.resize(static_cast<std::size_t>(n_rows));
  }
  int width() const { return lora + rope; }
  float& value(int r, int i) { return in[static_cast<std::size_t>(r * width() + i)]; }

  // All caches after one launch.
  Halves appended() const {
    const DeviceArray<float> d_in(in), d_weight(weight), d_cosine(cosine), d_sine(sine);
    const DeviceArray<std::uint16_t> caches(
        Halves(static_cast<std::size_t>(n_caches * n_positions * 2 * width()), kUnwritten));
    std::vector<std::uint16_t*> cache;
    std::vector<int> position;
    for (const int s : slot) {
      cache.push_back(caches.data() + s / n_positions * n_positions * 2 * width());
      position.push_back(s % n_positions);
    }
    const DeviceArray<std::uint16_t*> d_cache(cache);
    const DeviceArray<int> d_position(position);
    append_kv_cuda({.in = d_in.data(),
                    .norm_weight = d_weight.data(),
                    .eps = eps,
                    .kv_lora = lora,
                    .n_rows = n_rows,
                    .cache = d_cache.data(),
                    .position = d_position.data()},
                   {d_cosine.data(), d_sine.data(), rope, interleaved}, nullptr);
    return caches.host();
  }
  // Where a value's halves are in the caches: the high one, and the low one.
  std::pair<std::size_t, std::size_t> at(int r, int i) const {
    const int high = slot[static_cast<std::size_t>(r)] * 2 * width() + i;
    return {static_cast<std::size_t>(high), static_cast<std::size_t>(high + width())};
  }
  std::vector<float> expected(int r) const {
    const float* row = &in[static_cast<std::size_t>(r * width())];
    std::vector<float> out(row, row + width());
    rms_norm_reference(row, weight.data(), eps, lora, out.data());
    rope_reference(&cosine[static_cast<std::size_t>(r * rope / 2)],
                   &sine[static_cast<std::size_t>(r * rope / 2)], rope, interleaved,
                   out.data() + lora);
    return out;
  }
  std::string text() const {
    return std::to_string(lora) + " + " + std::to_string(rope) + ", " + std::to_string(n_rows) +
           " tokens, " + std::to_string(n_caches) + " caches";
  }
};

// Attention reads either both halves or the high one: neither may be a number.
void expect_nan(const Tokens& t, const Halves& got, int r, int i) {
  const auto [high, low] = t.at(r, i);
  EXPECT_FALSE(std::isfinite(from_half(got[high]))) << r << ", " << i << ", " << t.text();
  EXPECT_TRUE(std::isnan(from_half(got[high]) + from_half(got[low])))
      << r << ", " << i << ", " << t.text();
}

// Every bit of the caches, but that values past 65,504 may be NaN, and those that round to an
// infinity, from 65,520 on, must be.
void expect_exact(const Tokens& t, const Halves& got) {
  Halves expected(got.size(), kUnwritten);
  for (int r = 0; r < t.n_rows; ++r) {
    const std::vector<float> row = t.expected(r);
    for (int i = 0; i < t.width(); ++i) {
      const float v = row[static_cast<std::size_t>(i)];
      const auto [high, low] = t.at(r, i);
      const bool is_nan = std::isnan(from_half(got[high]) + from_half(got[low]));
      if (!(std::abs(v) < 65520) || (is_nan && !(std::abs(v) <= 65504))) {
        expect_nan(t, got, r, i);
        expected[high] = got[high], expected[low] = got[low];
      } else {
        expected[high] = to_half(v);
        expected[low] = to_half(v - from_half(expected[high]));
      }
    }
  }
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(got[i], expected[i])
        << i % static_cast<std::size_t>(2 * t.width()) << " of slot "
        << i / static_cast<std::size_t>(2 * t.width()) << ", " << t.text();
}

// Widths of rows that are multiples of eight bytes, and others.
constexpr std::pair<int, int> kShapes[] = {{512, 64}, {128, 32}, {512, 256}, {30, 6},
                                           {31, 2},   {4, 256},  {1, 2},     {509, 10}};

// ±2 have the root mean square 2, and whole cosines and sines turn no pair but add up exactly.
// Integers of 14 bits need both halves.
TEST_F(Cuda, CacheRowsAreExactOnIntegersWhereverTheyLie) {
  Random random(fresh_seed());
  for (const auto& [lora, rope] : kShapes)
    for (const bool interleaved : {true, false}) {
      Tokens tokens(lora, rope, 1 + random.below(9), interleaved, random);
      tokens.eps = 0;
      const auto whole = [&](int largest) {
        return static_cast<float>(random.below(2 * largest + 1) - largest);
      };
      for (float& w : tokens.weight) w = whole(16383);
      for (float& c : tokens.cosine) c = whole(4);
      for (float& s : tokens.sine) s = whole(4);
      for (int r = 0; r < tokens.n_rows; ++r)
        for (int i = 0; i < tokens.width(); ++i)
          tokens.value(r, i) = i >= lora ? whole(2047) : random.below(2) == 0 ? 2.0f : -2.0f;
      expect_exact(tokens, tokens.appended());
    }
}

// A latent of 4^k values, one of them a power of two and the others zero, is 2^k there: past what a
// half holds with a weight that the other tokens' ±1 are not. Key values are passed on as they are.
TEST_F(Cuda, PastWhatAHalfHoldsACacheRowIsNaNThereAndNowhereElse) {
  Random random(12);
  constexpr int kRows = 5;
  for (const auto& [lora, rope, k] :
       {std::tuple{256, 64, 4}, {256, 2, 4}, {64, 6, 3}, {16, 4, 2}, {4, 256, 1}})
    for (const float large : sizes<float>({65504.0f, 65504.00390625f, 65512.0f, 65519.99609375f,
                                           65520.0f, -65520.0f, 65536.0f, -1e5f},
                                          {65520.0f})) {
      Tokens tokens(lora, rope, kRows, random.below(2) == 0, random);
      tokens.eps = 0;
      for (float& w : tokens.weight) w = static_cast<float>(random.below(2048) - 1024);
      for (float& c : tokens.cosine) c = 1;
      for (float& s : tokens.sine) s = 0;
      for (int r = 0; r < kRows; ++r)
        for (int i = 0; i < tokens.width(); ++i)
          tokens.value(r, i) = random.below(2) == 0 ? 2.0f : -2.0f;
      const int peak = random.below(lora);
      tokens.weight[static_cast<std::size_t>(peak)] = std::ldexp(large, -k);
      for (int i = 0; i < lora; ++i) tokens.value(2, i) = i == peak ? 0.5f : 0.0f;
      tokens.value(3, lora + random.below(rope)) = large;
      tokens.value(4, lora + random.below(rope)) = std::ldexp(large, 100);
      expect_exact(tokens, tokens.appended());
    }
}

// Whatever a token's latent or key is, the other one and all other tokens keep their bits.
TEST_F(Cuda, NaNAndInfinityStayInTheirTokensCacheRow) {
  Random random(13);
  constexpr int kRows = 6, kRow = 3;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const auto& [lora, rope] : kShapes)
    for (const float bad : sizes<float>({std::nanf(""), kInf, -kInf}, {std::nanf("")}))
      for (const bool in_key : {false, true}) {
        Tokens tokens(lora, rope, kRows, random.below(2) == 0, random);
        Halves expected = tokens.appended();
        const int column = in_key ? lora + random.below(rope) : random.below(lora);
        tokens.value(kRow, column) = bad;
        const Halves got = tokens.appended();
        const std::vector<float> reference = tokens.expected(kRow);
        for (int i = 0; i < tokens.width(); ++i) {
          const bool is_finite = std::isfinite(reference[static_cast<std::size_t>(i)]);
          if (!is_finite) expect_nan(tokens, got, kRow, i);
          if (is_finite && (in_key || i >= lora)) continue;
          const auto [high, low] = tokens.at(kRow, i);
          expected[high] = got[high], expected[low] = got[low];
        }
        for (std::size_t i = 0; i < got.size(); ++i)
          ASSERT_EQ(got[i], expected[i])
              << bad << " in column " << column << " of slot " << tokens.slot[kRow] << ": "
              << i % static_cast<std::size_t>(2 * tokens.width()) << " of slot "
              << i / static_cast<std::size_t>(2 * tokens.width()) << ", " << tokens.text();
      }
}

TEST_F(Cuda, CacheRowsOfDrawnShapesStayWithinTheirBound) {
  Random random(fresh_seed());
  for (int n = 0; n < 12; ++n) {
    const Tokens tokens(1 + random.below(kMaxKvLoraCuda), 2 * (1 + random.below(kMaxRopeCuda / 2)),
                        1 + random.below(20), random.below(2) == 0, random);
    Halves got = tokens.appended();
    for (int r = 0; r < tokens.n_rows; ++r) {
      const std::vector<float> expected = tokens.expected(r);
      for (int i = 0; i < tokens.width(); ++i) {
        // Two halves hold 22 bits, or 2^-25; a norm has its bound, and a rotation of values below
        // 16 four roundings.
        const auto want = static_cast<double>(expected[static_cast<std::size_t>(i)]);
        const double halves = (0x1p-22 + 0x1p-24) * std::abs(want) + 0x1p-25,
                     before =
                         i < tokens.lora ? kRmsNormCudaBound * std::abs(want) : 4 * 0x1p-24 * 16;
        const auto [high, low] = tokens.at(r, i);
        ASSERT_NEAR(from_half(got[high]) + from_half(got[low]), want, halves + before)
            << r << ", " << i << ", " << tokens.text();
        got[high] = got[low] = kUnwritten;
      }
    }
    EXPECT_TRUE(std::all_of(got.begin(), got.end(), [](auto v) { return v == kUnwritten; }))
        << tokens.text();
  }
}

}  // namespace
}  // namespace assay::kernels
