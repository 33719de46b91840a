// Attention on a GPU against the reference: exact where one key takes all, within a derived bound,
// and bit by bit whatever the launch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
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

using Shape = AttentionShape;
using Problem = AttentionProblem;
constexpr Shape kShapes[] = {{128, 32, 6}, {512, 64, 64}, {128, 64, 20}, {64, 64, 40},
                             {512, 64, 5}, {512, 64, 72}, {16, 8, 3}};

TEST_F(Cuda, AttentionStaysWithinTheRoundingBound) {
  Random random(fresh_seed());
  for (const Shape& s : kShapes)
    for (const int n_keys : {1, 31, 200, 700, 1 + random.below(1200)}) {
      const Problem p(s, std::min(n_keys, 3), n_keys, random);
      std::vector<int> chosen;
      for (int i = 0; i < n_keys - p.rows + 1; i += 3) chosen.push_back(i);
      for (const auto& keys : {std::vector<int>{}, chosen}) {
        const std::vector<float> expected = p.expected(keys);
        for (const bool half : {false, true}) {
          const std::vector<float> got =
              p.computed(keys, {.splits = true, .runs = false, .half = half});
          const double bound = p.bound(half);
          double worst = 0;
          for (std::size_t i = 0; i < got.size(); ++i) {
            const double error =
                std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
            ASSERT_LE(error, bound) << i << " of " << s.kv_lora << " + " << s.rope;
            worst = std::max(worst, error);
          }
          std::printf("%3d + %2d, %2d heads, %3d keys%s%s: error %.2g, %.2g of its bound\n",
                      s.kv_lora, s.rope, s.n_heads, n_keys, keys.empty() ? "" : " chosen",
                      half ? ", halves" : "", worst, worst / bound);
        }
      }
    }
}

TEST_F(Cuda, AKeyThatTakesAllTheWeightGivesItsLatentExactly) {
  Random random(3);
  for (const Shape& s : kShapes) {
    const int n_keys = 300;
    Problem p(s, 1, n_keys, random);
    const std::vector<float> whole = random.floats(p.kv.size(), true),
                             more = random.floats(p.kv.size(), true);
    for (const int key : {0, 31, 32, 128, 255, 299}) {
      for (int k = 0; k < n_keys; ++k)
        for (int i = s.kv_lora; i < s.width(); ++i)
          p.kv[static_cast<std::size_t>(k * s.width() + i)] = k == key && i == s.width() - 1;
      for (std::size_t i = 0; i < p.q.size(); ++i)
        p.q[i] = static_cast<int>(i) % s.width() == s.width() - 1 ? 8192.0f : 0.0f;
      for (const bool half : {false, true}) {
        // What only both halves together hold.
        for (int k = 0; k < n_keys; ++k)
          for (int i = 0; i < s.kv_lora; ++i) {
            const auto at = static_cast<std::size_t>(k * s.width() + i);
            p.kv[at] = whole[at] + (half ? 0.0f : more[at] * 0x1p-16f);
          }
        const auto got = p.computed({}, {.splits = true, .runs = false, .half = half});
        for (int i = 0; i < s.n_heads * s.kv_lora; ++i)
          ASSERT_EQ(got[static_cast<std::size_t>(i)],
                    p.kv[static_cast<std::size_t>(key * s.width() + i % s.kv_lora)])
              << key << ", " << i;
      }
    }
  }
}

// As an engine asks: rows that are alone, and parts for as many as go at once.
std::vector<float> computed_alone(const Problem& p, bool half,
                                  const DeviceArray<std::uint16_t>& cache, bool* splits) {
  const Shape& s = p.s;
  std::vector<int> positions;
  for (int r = 0; r < p.rows; ++r) positions.push_back(p.last - p.rows + 1 + r);
  const DeviceArray<float> q(p.q);
  const DeviceArray<int> position(positions);
  const DeviceArray<std::uint16_t*> caches(
      std::vector<std::uint16_t*>(static_cast<std::size_t>(p.rows), cache.data()));
  const std::size_t n_parts = mla_parts(p.rows, p.rows, s.n_heads, s.kv_lora, s.rope, p.last + 1);
  EXPECT_LE(n_parts, mla_most_parts(p.rows, 1, s.n_heads, s.kv_lora, s.rope, p.last + 1));
  *splits = n_parts > 0;
  const auto parts = poisoned(std::max<std::size_t>(1, n_parts));
  const auto out = poisoned(static_cast<std::size_t>(p.rows * s.n_heads * s.kv_lora));
  mla_attention_cuda({.q = q.data(),
                      .cache = caches.data(),
                      .position = position.data(),
                      .n_runs = p.rows,
                      .n_rows = p.rows,
                      .n_heads = s.n_heads,
                      .kv_lora = s.kv_lora,
                      .rope = s.rope,
                      .scale = s.scale(),
                      .max_keys = p.last + 1,
                      .half = half,
                      .parts = *splits ? parts.data() : nullptr,
                      .out = out.data()},
                     nullptr);
  return out.host();
}

void expect_bits_of_the_keys(const Shape& s, int n_rows, int n_keys, bool half, Random& random) {
  const Problem p(s, n_rows, n_keys, random);
  const DeviceArray<std::uint16_t> cache(p.cache());
  const auto one_by_one = p.computed({}, {.splits = false, .runs = false, .half = half}, cache);
  for (const bool splits : {false, true})
    for (const bool runs : {false, true})
      EXPECT_EQ(p.computed({}, {.splits = splits, .runs = runs, .half = half}, cache), one_by_one)
          << s.kv_lora << ", " << n_keys << ", " << splits << runs << half;
  // The last row by itself.
  Problem last = p;
  last.rows = 1;
  const auto n = static_cast<std::ptrdiff_t>(s.n_heads);
  last.q.assign(p.q.end() - n * s.width(), p.q.end());
  EXPECT_EQ(last.computed({}, {.splits = true, .runs = false, .half = half}, cache),
            std::vector<float>(one_by_one.end() - n * s.kv_lora, one_by_one.end()));
  // Chosen keys: all of them, which is what the last row sees.
  std::vector<int> all;
  for (int i = 0; i < n_keys; ++i) all.push_back(i);
  EXPECT_EQ(last.computed(all, {.splits = true, .runs = false, .half = half}, cache),
            std::vector<float>(one_by_one.end() - n * s.kv_lora, one_by_one.end()));
}

TEST_F(Cuda, AttentionsBitsDependOnTheKeysAlone) {
  Random random(4);
  if (under_racecheck()) {
    // A last tile that is short, all stages in turn, several splits; tiled and clustered.
    for (const Shape& s : {Shape{128, 32, 6}, Shape{512, 64, 40}})
      for (const bool half : {false, true}) {
        const Problem p(s, 1, half ? 580 : 330, random);
        EXPECT_EQ(p.computed({}, {.splits = true, .runs = false, .half = half}),
                  p.computed({}, {.splits = false, .runs = false, .half = half}));
      }
    // Splits of three tiles, whose buffers are used again.
    const Problem p(Shape{512, 64, 40}, 1, 3900, random);
    for (const float v : p.computed({}, {.splits = true, .runs = false, .half = false}))
      EXPECT_TRUE(std::isfinite(v));
    return;
  }
  for (const Shape& s : kShapes)
    for (const bool half : {false, true}) {
      // The last: rows on both sides of where splits become longer, within what would be a run.
      for (const int n_keys : {40, 130, 600, 1500, mla_run_limit(s.n_heads) + 5})
        expect_bits_of_the_keys(s, 11, n_keys, half, random);
      // Splits of more tiles than there are stages.
      expect_bits_of_the_keys(s, 3, 9 * mla_run_limit(s.n_heads) + 5, half, random);
    }
}

// Too many rows for parts at once, too few to fill a large GPU: they go in passes.
TEST_F(Cuda, ManyRowsThatAreAloneHaveTheBitsThatTheyHaveWithoutSplits) {
  Random random(8);
  for (const Shape& s : {Shape{512, 64, 64}, Shape{512, 64, 72}, Shape{128, 32, 6}})
    for (const int n_rows : {3, 17, 35, 70}) {
      if (under_racecheck() && n_rows != 17) continue;
      const Problem p(s, n_rows, 300, random);
      const DeviceArray<std::uint16_t> cache(p.cache());
      bool splits = false;
      const auto got = computed_alone(p, false, cache, &splits);
      std::printf("%d heads, %d rows: %s\n", s.n_heads, n_rows,
                  splits ? "splits" : "a block to all splits of a row");
      EXPECT_EQ(got, p.computed({}, {.splits = false, .runs = false, .half = false}, cache))
          << s.n_heads << ", " << n_rows;
      if (n_rows == 3) EXPECT_TRUE(splits);
    }
}

TEST_F(Cuda, ANumberThatIsNoneIsSeen) {
  Random random(5);
  for (const Shape& s : kShapes) {
    Problem p(s, 1, 70, random);
    p.kv[static_cast<std::size_t>(40 * s.width())] = 1e6f;  // beyond binary16
    const auto got = p.computed({}, {.splits = true, .runs = false, .half = false});
    EXPECT_TRUE(std::isnan(got[0])) << got[0];
  }
}

// Row r of the tokens is written at position n_rows - r, in a cache of n_rows + 2 positions.
struct Tokens {
  int lora, rope, n_rows;
  bool interleaved;
  std::vector<float> in, weight, cosine, sine;
  float eps = 1e-6f;
  int width() const { return lora + rope; }
  Tokens(int lora_, int rope_, int n_rows_, bool interleaved_, Random& random)
      : lora(lora_),
        rope(rope_),
        n_rows(n_rows_),
        interleaved(interleaved_),
        in(random.floats(static_cast<std::size_t>(n_rows * width()))),
        weight(random.floats(static_cast<std::size_t>(lora))),
        cosine(static_cast<std::size_t>(n_rows * rope / 2)),
        sine(cosine.size()) {
    const RopeTable table(1e6, rope);
    for (int r = 0; r < n_rows; ++r)
      table.angles(r + 1000, &cosine[static_cast<std::size_t>(r * rope / 2)],
                   &sine[static_cast<std::size_t>(r * rope / 2)]);
  }
  // The cache after rows first … first + n - 1 alone were appended.
  std::vector<std::uint16_t> appended(int first, int n) const {
    const DeviceArray<float> d_in(in), d_weight(weight), d_cosine(cosine), d_sine(sine);
    const DeviceArray<std::uint16_t> cache(std::vector<std::uint16_t>(
        static_cast<std::size_t>((n_rows + 2) * 2 * width()), to_half(std::nanf(""))));
    const DeviceArray<std::uint16_t*> caches(
        std::vector<std::uint16_t*>(static_cast<std::size_t>(n), cache.data()));
    std::vector<int> positions;
    for (int r = first; r < first + n; ++r) positions.push_back(n_rows - r);
    const DeviceArray<int> position(positions);
    append_kv_cuda(
        {.in = d_in.data() + first * width(),
         .norm_weight = d_weight.data(),
         .eps = eps,
         .kv_lora = lora,
         .n_rows = n,
         .cache = caches.data(),
         .position = position.data()},
        {d_cosine.data() + first * rope / 2, d_sine.data() + first * rope / 2, rope, interleaved},
        nullptr);
    return cache.host();
  }
  const std::uint16_t* row_of(const std::vector<std::uint16_t>& cache, int r) const {
    return &cache[static_cast<std::size_t>((n_rows - r) * 2 * width())];
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
};

constexpr std::pair<int, int> kCacheRows[] = {{128, 32}, {512, 64},  {30, 6},
                                              {31, 2},   {512, 256}, {4, 256}};

// ±2 have the root mean square 2, a quarter turn exchanges a pair, and the halves hold integers.
TEST_F(Cuda, CacheRowsAreExactWhereTheRootIs) {
  Random random(5);
  for (const auto& [lora, rope] : kCacheRows)
    for (const bool interleaved : {true, false}) {
      Tokens tokens(lora, rope, 3, interleaved, random);
      tokens.eps = 0;
      tokens.weight = random.floats(tokens.weight.size(), true);
      std::fill(tokens.cosine.begin(), tokens.cosine.end(), 0.0f);
      std::fill(tokens.sine.begin(), tokens.sine.end(), 1.0f);
      for (std::size_t i = 0; i < tokens.in.size(); ++i) {
        const bool is_key = static_cast<int>(i) % tokens.width() >= lora;
        const float sign = random.below(2) == 0 ? 1.0f : -1.0f;
        tokens.in[i] = sign * (is_key ? static_cast<float>(random.below(900)) : 2.0f);
      }
      const auto got = tokens.appended(0, 3);
      for (int r = 0; r < 3; ++r) {
        const std::vector<float> expected = tokens.expected(r);
        const std::uint16_t* row = tokens.row_of(got, r);
        for (int i = 0; i < tokens.width(); ++i) {
          ASSERT_EQ(from_half(row[i]), expected[static_cast<std::size_t>(i)])
              << r << ", " << i << " of " << tokens.width();
          ASSERT_EQ(from_half(row[tokens.width() + i]), 0) << r << ", " << i;
        }
      }
    }
}

TEST_F(Cuda, CacheRowsAreTheNormedLatentAndTheRotatedKeyInTwoHalves) {
  Random random(fresh_seed());
  for (const auto& [lora, rope] : kCacheRows)
    for (const bool interleaved : {true, false}) {
      const Tokens tokens(lora, rope, 3, interleaved, random);
      const int width = tokens.width();
      const auto got = tokens.appended(0, 3);
      for (int r = 0; r < 3; ++r) {
        const std::vector<float> expected = tokens.expected(r);
        const std::uint16_t* row = tokens.row_of(got, r);
        // Two halves hold 22 bits, or 2^-25; a norm has its bound, and a rotation of values below
        // 16 four roundings.
        for (int i = 0; i < width; ++i) {
          const auto want = static_cast<double>(expected[static_cast<std::size_t>(i)]);
          const double halves = (0x1p-22 + 0x1p-24) * std::abs(want) + 0x1p-25,
                       before = i < lora ? kRmsNormCudaBound * std::abs(want) : 4 * 0x1p-24 * 16;
          ASSERT_NEAR(from_half(row[i]) + from_half(row[width + i]), want, halves + before)
              << r << ", " << i << " of " << width;
        }
      }
      const auto first = got.begin(), last = got.end() - 2 * width;
      const auto untouched = [&](auto from) {
        return std::all_of(from, from + 2 * width,
                           [](std::uint16_t v) { return v == to_half(std::nanf("")); });
      };
      EXPECT_TRUE(untouched(first) && untouched(last)) << lora << " + " << rope;
    }
}

TEST_F(Cuda, ACacheRowHasTheSameBitsWhateverIsAppendedBesideIt) {
  Random random(7);
  for (const auto& [lora, rope] : kCacheRows) {
    const Tokens tokens(lora, rope, 4, true, random);
    const auto all = tokens.appended(0, 4);
    for (int r = 0; r < 4; ++r) {
      const auto one = tokens.appended(r, 1);
      EXPECT_TRUE(std::equal(tokens.row_of(one, r), tokens.row_of(one, r) + 2 * tokens.width(),
                             tokens.row_of(all, r)))
          << r << " of " << lora << " + " << rope;
    }
  }
}

}  // namespace
}  // namespace assay::kernels
