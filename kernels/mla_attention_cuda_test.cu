// Attention on a GPU against the reference: exact where one key takes all, within a derived bound,
// and bit by bit whatever the launch.
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace assay::kernels {
namespace {

float from_half(std::uint16_t bits) {
  __half h;
  std::memcpy(&h, &bits, 2);
  return __half2float(h);
}

struct Shape {
  int kv_lora, rope, n_heads;
  int width() const { return kv_lora + rope; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(width())); }
};
constexpr Shape kShapes[] = {{128, 32, 6}, {512, 64, 64}, {128, 64, 20},
                             {64, 64, 40}, {512, 64, 5},  {16, 8, 3}};

// Rows at the last positions of one sequence.
struct Problem {
  Problem(const Shape& shape, int n_rows, int n_keys, Random& random)
      : s(shape),
        rows(n_rows),
        last(n_keys - 1),
        q(random.floats(static_cast<std::size_t>(n_rows * s.n_heads * s.width()))),
        kv(random.floats(static_cast<std::size_t>(n_keys * s.width()))) {}

  std::vector<std::uint16_t> cache() const {
    const auto width = static_cast<std::size_t>(s.width());
    std::vector<std::uint16_t> out(2 * kv.size());
    for (std::size_t i = 0; i < kv.size(); ++i) {
      const std::size_t at = i / width * 2 * width + i % width;
      out[at] = to_half(kv[i]);
      out[at + width] = to_half(kv[i] - from_half(out[at]));
    }
    return out;
  }
  // (n_rows, n_heads, kv_lora); `chosen`: keys of every row, or none for all up to its position.
  std::vector<float> expected(const std::vector<int>& chosen) const {
    std::vector<float> out(static_cast<std::size_t>(rows * s.n_heads * s.kv_lora));
    for (int r = 0; r < rows; ++r)
      mla_attention_reference(
          {.q = &q[static_cast<std::size_t>(r * s.n_heads * s.width())],
           .kv = kv.data(),
           .keys = chosen.empty() ? nullptr : chosen.data(),
           .n_keys = chosen.empty() ? last - rows + 2 + r : static_cast<int>(chosen.size()),
           .n_heads = s.n_heads,
           .kv_lora = s.kv_lora,
           .rope = s.rope,
           .scale = s.scale(),
           .out = &out[static_cast<std::size_t>(r * s.n_heads * s.kv_lora)]});
    return out;
  }
  struct How {
    bool splits, runs, half;
  };
  std::vector<float> computed(const std::vector<int>& chosen, const How& how) const {
    const DeviceArray<float> dq(q);
    const DeviceArray<std::uint16_t> d_cache(cache());
    std::vector<int> positions, run, keys, n_keys;
    for (int r = 0; r < rows; ++r) {
      positions.push_back(last - rows + 1 + r);
      if (r % mla_rows_of_run(s.n_heads) == 0) run.push_back(r);
      keys.insert(keys.end(), chosen.begin(), chosen.end());
      n_keys.push_back(static_cast<int>(chosen.size()));
    }
    const int n_runs = how.runs ? static_cast<int>(run.size()) : rows;
    run.push_back(rows);
    const DeviceArray<std::uint16_t*> caches(
        std::vector<std::uint16_t*>(static_cast<std::size_t>(rows), d_cache.data()));
    const DeviceArray<int> d_position(positions), d_run(run), d_keys(keys), d_n_keys(n_keys);
    const auto parts = poisoned(
        std::max<std::size_t>(1, mla_parts(rows, 1, s.n_heads, s.kv_lora, s.rope, last + 1)));
    const auto out = poisoned(static_cast<std::size_t>(rows * s.n_heads * s.kv_lora));
    mla_attention_cuda({.q = dq.data(),
                        .cache = caches.data(),
                        .position = d_position.data(),
                        .keys = chosen.empty() ? nullptr : d_keys.data(),
                        .n_keys = d_n_keys.data(),
                        .keys_stride = static_cast<int>(chosen.size()),
                        .run = how.runs ? d_run.data() : nullptr,
                        .n_runs = n_runs,
                        .n_rows = rows,
                        .n_heads = s.n_heads,
                        .kv_lora = s.kv_lora,
                        .rope = s.rope,
                        .scale = s.scale(),
                        .max_keys = last + 1,
                        .half = how.half,
                        .parts = how.splits ? parts.data() : nullptr,
                        .out = out.data()},
                       nullptr);
    return out.host();
  }
  // Roundings of 2^-22 (halves: 2^-11) to a factor of a product, and 2^-24 to every sum, make an
  // error of a score; twice that much, relatively, of its weight; which with as much of the weight
  // itself is the error of a mean of latents.
  double bound(bool half) const {
    double score = 0, largest = 0;
    for (const float v : kv) largest = std::max(largest, std::abs(static_cast<double>(v)));
    for (std::size_t first = 0; first < q.size(); first += static_cast<std::size_t>(s.width())) {
      double sum = 0;
      for (int i = 0; i < s.width(); ++i)
        sum += std::abs(static_cast<double>(q[first + static_cast<std::size_t>(i)])) * largest;
      score = std::max(score, sum * static_cast<double>(s.scale()));
    }
    const double unit = half ? 0x1p-11 : 0x1p-22;
    const double delta = score * (3 * unit + (s.width() + 8) * 0x1p-24);
    return largest * (2 * delta + 4 * unit + (last + 16) * 0x1p-24);
  }
  Shape s;
  int rows, last;
  std::vector<float> q, kv;
};

TEST_F(Cuda, AttentionStaysWithinTheRoundingBound) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  Random random(seed);
  for (const Shape& s : kShapes)
    for (const int n_keys : {1, 31, 200, 700}) {
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

TEST_F(Cuda, AttentionsBitsDependOnTheKeysAlone) {
  Random random(4);
  for (const Shape& s : kShapes)
    for (const int n_keys : {40, 130, 600, 1500}) {
      const Problem p(s, 11, n_keys, random);
      const auto one_by_one = p.computed({}, {.splits = false, .runs = false, .half = false});
      for (const bool splits : {false, true})
        for (const bool runs : {false, true})
          EXPECT_EQ(p.computed({}, {.splits = splits, .runs = runs, .half = false}), one_by_one)
              << s.kv_lora << ", " << n_keys << ", " << splits << runs;
      // The last row by itself.
      Problem last = p;
      last.rows = 1;
      const auto n = static_cast<std::ptrdiff_t>(s.n_heads);
      last.q.assign(p.q.end() - n * s.width(), p.q.end());
      EXPECT_EQ(last.computed({}, {.splits = true, .runs = false, .half = false}),
                std::vector<float>(one_by_one.end() - n * s.kv_lora, one_by_one.end()));
      // Chosen keys: all of them, which is what the last row sees.
      std::vector<int> all;
      for (int i = 0; i < n_keys; ++i) all.push_back(i);
      EXPECT_EQ(last.computed(all, {.splits = true, .runs = false, .half = false}),
                std::vector<float>(one_by_one.end() - n * s.kv_lora, one_by_one.end()));
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

TEST_F(Cuda, CacheRowsAreTheNormedLatentAndTheRotatedKeyInTwoHalves) {
  Random random(6);
  constexpr int kLora = 128, kRope = 32, kWidth = kLora + kRope, kRows = 3, kPositions = 5;
  const std::vector<float> in = random.floats(kRows * kWidth), weight = random.floats(kLora);
  const RopeTable table(1e6, kRope);
  std::vector<float> cosine(kRows * kRope / 2), sine(cosine.size());
  for (int r = 0; r < kRows; ++r)
    table.angles(r + 1000, &cosine[r * kRope / 2], &sine[r * kRope / 2]);
  const DeviceArray<float> d_in(in), d_weight(weight), d_cosine(cosine), d_sine(sine);
  const std::uint16_t kPoison = to_half(std::nanf(""));
  const DeviceArray<std::uint16_t> cache(
      std::vector<std::uint16_t>(kPositions * 2 * kWidth, kPoison));
  const DeviceArray<std::uint16_t*> caches(std::vector<std::uint16_t*>(kRows, cache.data()));
  const DeviceArray<int> position(std::vector<int>{1, 2, 3});
  append_kv_cuda({.in = d_in.data(),
                  .norm_weight = d_weight.data(),
                  .eps = 1e-6f,
                  .kv_lora = kLora,
                  .n_rows = kRows,
                  .cache = caches.data(),
                  .position = position.data()},
                 {d_cosine.data(), d_sine.data(), kRope, true}, nullptr);
  const auto got = cache.host();
  for (int r = 0; r < kRows; ++r) {
    std::vector<float> expected(in.begin() + r * kWidth, in.begin() + (r + 1) * kWidth);
    rms_norm_reference(&in[r * kWidth], weight.data(), 1e-6f, kLora, expected.data());
    rope_reference(&cosine[r * kRope / 2], &sine[r * kRope / 2], kRope, true,
                   expected.data() + kLora);
    const std::uint16_t* row = &got[(r + 1) * 2 * kWidth];
    for (int i = 0; i < kWidth; ++i)  // 22 bits, after a few roundings of sums of values below 5
      EXPECT_NEAR(from_half(row[i]) + from_half(row[kWidth + i]), expected[i],
                  0x1p-22 * std::abs(expected[i]) + 16 * 0x1p-24 * 10)
          << r << ", " << i;
  }
  for (const int p : {0, kPositions - 1})
    EXPECT_EQ(std::vector<std::uint16_t>(&got[p * 2 * kWidth], &got[(p + 1) * 2 * kWidth]),
              std::vector<std::uint16_t>(2 * kWidth, kPoison));
}

}  // namespace
}  // namespace assay::kernels
