#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/quantize/gptq_scalar.h"
#include "engine/quantize/gptq_testing.h"
#include "engine/quantize/sweep_cpu.h"
#include "kernels/quantised.h"
#include "kernels/row_major.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

TEST(PackIndices, ByHand) {
  // docs/formats/vq.md: 12-bit indices straddle words.
  const std::vector<std::uint16_t> indices = {0x123, 0x456, 0x789, 0xABC, 0xDEF};
  EXPECT_EQ(pack_indices(indices, 1, 5, 12), (std::vector<std::uint32_t>{0x89456123, 0x0DEFABC7}));
  const std::vector<std::uint16_t> bytes = {5, 9, 1, 200, 7, 0};
  EXPECT_EQ(pack_indices(bytes, 2, 3, 8), (std::vector<std::uint32_t>{0x00010905, 0x000007C8}))
      << "rows begin at whole words";
}

TEST(GptqVq, ErrorIsTheOutputErrorOfTheDecodedMatrix) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {4, 16}, {1, 4}}) {
    Problem p(70, 152, 11);  // more than a chunk of rows, more than a panel of columns
    const Codebook book = random_codebook(dim, n_codes, 3);
    for (const bool compensate : {true, false}) {
      const auto e = gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor,
                             {.group = 64, .compensate = compensate}, p.pool, "m");
      ASSERT_TRUE(e) << e.error().message;
      const double expected = p.error_of(decode(*e, p, book, 64));
      EXPECT_NEAR(e->error, expected, 1e-4 * expected) << "d " << dim << " " << compensate;
      EXPECT_NEAR(e->relative_error, expected / p.error_of(std::vector<double>(p.w.size(), 0.0)),
                  1e-3);
    }
  }
}

// The sweep as its definition reads, in double precision: every codeword is tried.
std::vector<std::uint16_t> sweep_by_definition(const Problem& p, const Codebook& book, int group) {
  const int n = p.n_cols, d = book.dim;
  std::vector<std::uint16_t> out;
  for (int row = 0; row < p.n_rows; ++row) {
    std::vector<double> e(static_cast<std::size_t>(n), 0.0);
    for (int b = 0; b < n; b += d) {
      const int first = b / group * group, end = std::min(n, first + group);
      double sum = 0, square = 0;
      for (int c = first; c < end; ++c) {
        const double v = static_cast<double>(p.w[kernels::row_major(row, n, c)]);
        sum += v, square += v * v;
      }
      const double mean = sum / (end - first);
      const double scale = static_cast<double>(
          round_to_f16(static_cast<float>(std::sqrt(square / (end - first) - mean * mean))));
      double least = std::numeric_limits<double>::infinity();
      int best = 0;
      for (int k = 0; k < book.n_codes; ++k) {
        double cost = 0;
        for (int j = b; j < b + d; ++j) {
          double column = 0;
          for (int i = 0; i < b; ++i)
            column += e[static_cast<std::size_t>(i)] * static_cast<double>(p.factor.at(i, j));
          for (int i = b; i <= j; ++i)
            column += (static_cast<double>(p.w[kernels::row_major(row, n, i)]) -
                       scale * static_cast<double>(book.values[kernels::row_major(k, d, i - b)])) *
                      static_cast<double>(p.factor.at(i, j));
          cost += column * column;
        }
        if (cost < least) least = cost, best = k;
      }
      out.push_back(static_cast<std::uint16_t>(best));
      for (int i = b; i < b + d; ++i)
        e[static_cast<std::size_t>(i)] =
            static_cast<double>(p.w[kernels::row_major(row, n, i)]) -
            scale * static_cast<double>(book.values[kernels::row_major(best, d, i - b)]);
    }
  }
  return out;
}

TEST(GptqVq, ChoosesTheCodewordThatTheDefinitionChooses) {
  const Problem p(5, 144, 21);
  const Codebook book = random_codebook(4, 32, 5);
  Problem q(5, 144, 21);
  const auto e = gptq_vq(q.w.data(), q.n_rows, q.n_cols, book, q.factor,
                         {.group = 48, .n_refits = 0}, q.pool, "m");
  const std::vector<std::uint16_t> expected = sweep_by_definition(p, book, 48);
  int n_different = 0;  // a near-tie may fall the other way in float, and then what follows it
  for (std::size_t i = 0; i < expected.size(); ++i) n_different += e->indices[i] != expected[i];
  EXPECT_EQ(n_different, 0) << "of " << expected.size();
}

TEST(GptqVq, FeedbackPaysWhereInputsCorrelateAndRefitsNeverCost) {
  Problem p(64, 128, 31, 20);
  const Codebook book = random_codebook(8, 256, 7);
  const auto with = [&](bool compensate, int refits) {
    return gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor,
                   {.group = 128, .compensate = compensate, .n_refits = refits}, p.pool, "m")
        ->error;
  };
  const double naive = with(false, 0), swept = with(true, 0), refitted = with(true, 1),
               twice = with(true, 2);
  EXPECT_LT(swept, 0.7 * naive);
  EXPECT_LE(refitted, swept);
  EXPECT_LE(twice, refitted);
}

TEST(GptqVq, SameBitsForAnyPool) {
  Problem p(130, 136, 41);
  const Codebook book = random_codebook(8, 64, 9);
  ThreadPool one(1), three(3);
  const auto a = gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, {.group = 64}, one, "m");
  const auto b = gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, {.group = 64}, three, "m");
  EXPECT_EQ(a->indices, b->indices);
  EXPECT_EQ(a->scales, b->scales);
  EXPECT_EQ(a->error, b->error);
}

TEST(GptqVq, AGroupOfZerosHasScaleZero) {
  Problem p(3, 32, 51);
  std::fill(p.w.begin(), p.w.begin() + 16, 0.0f);
  const auto e = gptq_vq(p.w.data(), p.n_rows, p.n_cols, random_codebook(4, 16, 1), p.factor,
                         {.group = 16, .n_refits = 0}, p.pool, "m");
  EXPECT_EQ(e->scales[0], 0);
  EXPECT_NE(e->scales[1], 0);
}

TEST(GptqVq, BadInputIsNamed) {
  Problem p(3, 32, 61);
  const Codebook book = random_codebook(4, 16, 1);
  p.w[37] = std::numeric_limits<float>::quiet_NaN();
  const auto nan = gptq_vq(p.w.data(), 3, 32, book, p.factor, {}, p.pool, "layers.3.up_proj");
  EXPECT_THAT(nan.error().message, HasSubstr("layers.3.up_proj: row 1, column 5"));
  const auto group = gptq_vq(p.w.data(), 3, 32, book, p.factor, {.group = 6}, p.pool, "m");
  EXPECT_THAT(group.error().message, HasSubstr("groups of 6"));
}

GptqVqOptions descending(const Problem& p, int n_passes, int group) {
  return {.group = group, .n_descents = n_passes, .hessian = &p.h};
}

TEST(GptqVq, DescentLowersTheOutputErrorAndSaysWhatItIs) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {4, 16}, {1, 4}}) {
    Problem p(70, 152, 11);
    const Codebook book = random_codebook(dim, n_codes, 3);
    double before = std::numeric_limits<double>::infinity();
    for (const int n_passes : {0, 1, 3}) {
      const auto e = gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor,
                             descending(p, n_passes, 64), p.pool, "m");
      ASSERT_TRUE(e) << e.error().message;
      const double exact = p.error_of(decode(*e, p, book, 64));
      EXPECT_NEAR(e->error, exact, 1e-4 * exact) << "d " << dim;
      EXPECT_LT(exact, n_passes == 0 ? before : 0.999 * before) << "d " << dim << " " << n_passes;
      before = exact;
    }
  }
}

// After many passes no other codeword in any one place is better: tried, one by one.
TEST(GptqVq, DescentEndsWhereNoSingleCodewordHelps) {
  Problem p(6, 32, 21);
  const Codebook book = random_codebook(4, 16, 5);
  const auto e =
      gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, descending(p, 40, 16), p.pool, "m");
  ASSERT_TRUE(e) << e.error().message;
  const std::vector<double> q = decode(*e, p, book, 16);
  const double error = p.error_of(q);
  for (int r = 0; r < p.n_rows; ++r)
    for (int b = 0; b < p.n_cols / 4; ++b)
      for (int k = 0; k < 16; ++k) {
        std::vector<double> other = q;
        const double scale = static_cast<double>(
            kernels::f16_to_f32(e->scales[kernels::row_major(r, 2, b * 4 / 16)]));
        for (int i = 0; i < 4; ++i)
          other[kernels::row_major(r, p.n_cols, b * 4 + i)] =
              scale * static_cast<double>(book.values[kernels::row_major(k, 4, i)]);
        EXPECT_GE(p.error_of(other), error * (1 - 1e-6)) << r << " " << b << " " << k;
      }
}

TEST(GptqVq, DescentHasTheSameBitsForAnyThreads) {
  Problem p(130, 96, 31);
  const Codebook book = random_codebook(8, 32, 7);
  ThreadPool one(1);
  const auto a =
      gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, descending(p, 2, 64), p.pool, "m");
  const auto b =
      gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, descending(p, 2, 64), one, "m");
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->indices, b->indices);
  EXPECT_EQ(a->scales, b->scales);
}

// The inner loops as sweep_cpu.h defines them: one chain of fused multiply-adds for each sum. More
// errors than a tile takes, columns and lanes that fill none, and codewords there twice.
class Sweep : public ::testing::TestWithParam<kernels::CpuTarget> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Sweep);
INSTANTIATE_TEST_SUITE_P(Cpu, Sweep, ::testing::ValuesIn(kernels::usable_cpu_targets()),
                         [](const auto& target) {
                           return std::string(kernels::cpu_target_name(target.param));
                         });

void expect_same_bits(const std::vector<float>& expected, const std::vector<float>& got) {
  ASSERT_EQ(expected.size(), got.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(expected[i]), std::bit_cast<std::uint32_t>(got[i]))
        << i << ": " << got[i] << ", expected " << expected[i];
}

TEST_P(Sweep, PushedErrorsAreAChainInAscendingOrder) {
  for (const std::size_t n_errors : {1, 128, 300})
    for (const std::size_t n_cols : {1, 8, 13})
      for (const std::size_t n_lanes : {16, 48, 80}) {
        const std::size_t stride = n_cols + 3;
        const auto errors = normals(n_errors * n_lanes, 1), panel = normals(n_errors * stride, 2);
        auto sums = normals(n_cols * n_lanes, 3), expected = sums;
        for (std::size_t c = 0; c < n_cols; ++c)
          for (std::size_t r = 0; r < n_lanes; ++r)
            for (std::size_t k = 0; k < n_errors; ++k)
              expected[c * n_lanes + r] = std::fma(errors[k * n_lanes + r], panel[k * stride + c],
                                                   expected[c * n_lanes + r]);
        push_errors(GetParam(), {.errors = errors.data(),
                                 .panel = panel.data(),
                                 .sums = sums.data(),
                                 .n_errors = static_cast<int>(n_errors),
                                 .n_cols = static_cast<int>(n_cols),
                                 .n_lanes = static_cast<int>(n_lanes),
                                 .panel_stride = static_cast<int>(stride)});
        SCOPED_TRACE(testing::Message() << n_errors << " errors, " << n_cols << " columns");
        expect_same_bits(expected, sums);
      }
}

constexpr std::size_t kSweepCodes = 37;
constexpr std::size_t kSweepDims[] = {1, 2, 4, 8, 16};
constexpr std::size_t kSweepLanes[] = {16, 48, 80};

// The first codeword of least score in each lane, and that score.
template <class Score>
std::pair<std::vector<float>, std::vector<float>> least(std::size_t n_lanes, const Score& score) {
  std::vector<float> best(n_lanes, std::numeric_limits<float>::infinity()), index(n_lanes, 0.0f);
  for (std::size_t k = 0; k < kSweepCodes; ++k)
    for (std::size_t r = 0; r < n_lanes; ++r)
      if (const float s = score(k, r); s < best[r]) best[r] = s, index[r] = static_cast<float>(k);
  return {best, index};
}

// Codewords from 20 on repeat the first ones.
std::vector<float> repeating_codebook(std::size_t dim, std::uint64_t seed) {
  auto book = normals(kSweepCodes * dim, seed);
  std::copy(book.begin(), book.begin() + 17 * static_cast<std::ptrdiff_t>(dim),
            book.begin() + 20 * static_cast<std::ptrdiff_t>(dim));
  return book;
}

TEST_P(Sweep, TheNearestCodewordIsTheScalarLoops) {
  for (const std::size_t dim : kSweepDims)
    for (const std::size_t n_lanes : kSweepLanes) {
      const auto u = normals(dim * n_lanes, 4), table = repeating_codebook(dim + 1, 5);
      std::vector<float> score(n_lanes), index(n_lanes);
      nearest_codewords(GetParam(), {.u = u.data(),
                                     .table = table.data(),
                                     .score = score.data(),
                                     .index = index.data(),
                                     .dim = static_cast<int>(dim),
                                     .n_codes = kSweepCodes,
                                     .n_lanes = static_cast<int>(n_lanes)});
      const auto expected = least(n_lanes, [&](std::size_t k, std::size_t r) {
        const float* c = &table[k * (dim + 1)];
        float sum = c[dim];
        for (std::size_t i = 0; i < dim; ++i) sum = std::fma(-u[i * n_lanes + r], c[i], sum);
        return sum;
      });
      SCOPED_TRACE(testing::Message() << "d " << dim << ", " << n_lanes << " lanes");
      expect_same_bits(expected.first, score);
      expect_same_bits(expected.second, index);
    }
}

TEST_P(Sweep, TheFewNearestAreTheScalarLoopsInOrder) {
  for (const std::size_t dim : kSweepDims)
    for (const std::size_t n_best : {1, 3, 37}) {
      constexpr std::size_t kSomeLanes = 48;
      const auto u = normals(dim * kSomeLanes, 4), table = repeating_codebook(dim + 1, 5);
      std::vector<float> score(n_best * kSomeLanes), index(score.size());
      few_nearest_codewords(GetParam(), {.u = u.data(),
                                         .table = table.data(),
                                         .score = score.data(),
                                         .index = index.data(),
                                         .dim = static_cast<int>(dim),
                                         .n_codes = kSweepCodes,
                                         .n_best = static_cast<int>(n_best),
                                         .n_lanes = kSomeLanes});
      std::vector<float> best_score(score.size()), best_index(score.size());
      for (std::size_t r = 0; r < kSomeLanes; ++r) {
        std::vector<std::pair<float, std::size_t>> all;
        for (std::size_t k = 0; k < kSweepCodes; ++k) {
          float sum = table[k * (dim + 1) + dim];
          for (std::size_t i = 0; i < dim; ++i)
            sum = std::fma(-u[i * kSomeLanes + r], table[k * (dim + 1) + i], sum);
          all.emplace_back(sum, k);
        }
        std::sort(all.begin(), all.end());
        for (std::size_t j = 0; j < n_best; ++j) {
          best_score[j * kSomeLanes + r] = all[j].first;
          best_index[j * kSomeLanes + r] = static_cast<float>(all[j].second);
        }
      }
      SCOPED_TRACE(testing::Message() << "d " << dim << ", " << n_best << " best");
      expect_same_bits(best_score, score);
      expect_same_bits(best_index, index);
    }
}

TEST_P(Sweep, TheNearestWeightedCodewordIsTheScalarLoops) {
  for (const std::size_t dim : kSweepDims)
    for (const std::size_t n_lanes : kSweepLanes) {
      auto w = normals(dim * n_lanes, 6);
      for (float& weight : w) weight *= weight;
      const auto v = normals(dim * n_lanes, 7), book = repeating_codebook(dim, 8);
      std::vector<float> score(n_lanes), index(n_lanes);
      nearest_weighted(GetParam(), {.w = w.data(),
                                    .v = v.data(),
                                    .codebook = book.data(),
                                    .score = score.data(),
                                    .index = index.data(),
                                    .dim = static_cast<int>(dim),
                                    .n_codes = kSweepCodes,
                                    .n_lanes = static_cast<int>(n_lanes)});
      const auto expected = least(n_lanes, [&](std::size_t k, std::size_t r) {
        float sum = 0;
        for (std::size_t i = 0; i < dim; ++i) {
          const float c = book[k * dim + i];
          sum = std::fma(std::fma(w[i * n_lanes + r], c, v[i * n_lanes + r]), c, sum);
        }
        return sum;
      });
      SCOPED_TRACE(testing::Message() << "d " << dim << ", " << n_lanes << " lanes");
      expect_same_bits(expected.first, score);
      expect_same_bits(expected.second, index);
    }
}

TEST(GptqScalar, PacksWhatTheReaderReads) {
  for (const int bits : {4, 8}) {
    Problem p(24, 136, 71);
    const auto e = gptq_scalar(p.w.data(), p.n_rows, p.n_cols, p.factor,
                               {.bits = bits, .group = 64}, p.pool, "m");
    ASSERT_TRUE(e) << e.error().message;
    const kernels::ScaledMatrix m{.kind = bits == 4 ? kernels::ScaledMatrix::Kind::kGptq4
                                                    : kernels::ScaledMatrix::Kind::kGptq8,
                                  .values = std::as_bytes(std::span(e->qweight)).data(),
                                  .scales = std::as_bytes(std::span(e->scales)).data(),
                                  .zeros = std::as_bytes(std::span(e->qzeros)).data(),
                                  .n_rows = p.n_rows,
                                  .n_cols = p.n_cols,
                                  .group = 64};
    std::vector<double> q;
    for (int r = 0; r < p.n_rows; ++r)
      for (int c = 0; c < p.n_cols; ++c)
        q.push_back(static_cast<double>(kernels::weight_at(m, r, c)));
    const double relative = p.error_of(q) / p.error_of(std::vector<double>(p.w.size(), 0.0));
    EXPECT_NEAR(e->relative_error, relative, 1e-3 * relative);
    EXPECT_LT(relative, bits == 4 ? 0.02 : 1e-4);
    // Rounding to nearest on a grid over the whole range: what feedback and clipping must beat.
    std::vector<double> nearest;
    for (int r = 0; r < p.n_rows; ++r)
      for (int c = 0; c < p.n_cols; ++c) {
        const auto first = p.w.begin() + r * p.n_cols + c / 64 * 64,
                   last = p.w.begin() +
                          std::min(r * p.n_cols + p.n_cols, r * p.n_cols + c / 64 * 64 + 64);
        const double low = static_cast<double>(*std::min_element(first, last)),
                     high = static_cast<double>(*std::max_element(first, last));
        const double step = (high - low) / ((1 << bits) - 1);
        nearest.push_back(
            low +
            step * std::round((static_cast<double>(p.w[kernels::row_major(r, p.n_cols, c)]) - low) /
                              step));
      }
    EXPECT_LT(p.error_of(q), p.error_of(nearest)) << bits << " bits";
  }
}

TEST(GptqScalar, SizesThatDoNotFillWordsAreRefused) {
  Problem p(3, 32, 81);
  EXPECT_THAT(gptq_scalar(p.w.data(), 3, 32, p.factor, {.bits = 4}, p.pool, "odd").error().message,
              HasSubstr("odd: [3, 32] cannot be packed 8 values to a word"));
  EXPECT_THAT(gptq_scalar(p.w.data(), 3, 32, p.factor, {.bits = 5}, p.pool, "m").error().message,
              HasSubstr("5 bits"));
}

}  // namespace
}  // namespace assay::engine
