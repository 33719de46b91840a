#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "engine/quantize/beam_sweep.h"
#include "engine/quantize/gptq_testing.h"
#include "engine/quantize/gptq_vq.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

VqEncoding swept(Problem& p, const Codebook& book, int beam, int group, int n_refits = 0) {
  const auto e = gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor,
                         {.group = group, .beam = beam, .n_refits = n_refits}, p.pool, "m");
  EXPECT_TRUE(e) << e.error().message;
  return *e;
}

// The least error that any codes of a row have, with the scales as they are.
double least_error(const Problem& p, int row, const Codebook& book, const VqEncoding& e,
                   int group) {
  const int d = book.dim, n_blocks = p.n_cols / d, n_groups = (p.n_cols + group - 1) / group;
  std::vector<int> codes(static_cast<std::size_t>(n_blocks), 0);
  double least = std::numeric_limits<double>::infinity();
  for (bool more = true; more;) {
    std::vector<double> gap;
    for (int c = 0; c < p.n_cols; ++c) {
      const double scale = static_cast<double>(
          kernels::f16_to_f32(e.scales[kernels::row_major(row, n_groups, c / group)]));
      gap.push_back(static_cast<double>(p.w[kernels::row_major(row, p.n_cols, c)]) -
                    scale * static_cast<double>(book.values[kernels::row_major(
                                codes[static_cast<std::size_t>(c / d)], d, c % d)]));
    }
    double error = 0;
    for (int i = 0; i < p.n_cols; ++i)
      for (int j = 0; j < p.n_cols; ++j)
        error +=
            gap[static_cast<std::size_t>(i)] * p.damped(i, j) * gap[static_cast<std::size_t>(j)];
    least = std::min(least, error);
    more = false;
    for (int& code : codes) {
      more = ++code < book.n_codes;
      if (more) break;
      code = 0;
    }
  }
  return least;
}

struct Small {
  int dim, n_codes, n_cols, beam;
};

// A beam that is as wide as there are codings of all columns but the last sub-vector.
TEST(Beam, WideEnoughItFindsTheBestOfAllCodings) {
  for (const auto& [dim, n_codes, n_cols, beam] :
       {Small{1, 2, 7, 64}, {1, 4, 4, 64}, {2, 4, 8, 64}, {4, 8, 12, 64}, {8, 4, 24, 16}})
    for (const std::uint64_t seed : {1, 2, 3}) {
      Problem p(5, n_cols, seed);
      const int group = 2 * dim;
      const Codebook book = random_codebook(dim, n_codes, seed + 10);
      const VqEncoding e = swept(p, book, beam, group);
      double least = 0;
      for (int r = 0; r < p.n_rows; ++r) least += least_error(p, r, book, e, group);
      EXPECT_NEAR(p.error_of(decode(e, p, book, group)), least, 1e-5 * least)
          << "d " << dim << ", seed " << seed;
      EXPECT_GT(swept(p, book, 1, group).error, 1.0001 * least)
          << "a problem that one cannot solve";
    }
}

// The first group's codes all mean zero, and would fill the beam if they counted as codings.
TEST(Beam, CodesOfAGroupOfZerosAreOneCoding) {
  Problem p(5, 8, 4);
  for (int r = 0; r < p.n_rows; ++r) std::fill_n(p.w.begin() + r * 8, 4, 0.0f);
  const Codebook book = random_codebook(2, 8, 5);
  const VqEncoding e = swept(p, book, 8, 4);
  double least = 0;
  for (int r = 0; r < p.n_rows; ++r) {
    EXPECT_EQ(e.scales[kernels::row_major(r, 2, 0)], 0);
    least += least_error(p, r, book, e, 4);
  }
  EXPECT_NEAR(p.error_of(decode(e, p, book, 4)), least, 1e-5 * least);
}

TEST(Beam, OfOneIsThePlainSweep) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {4, 16}, {1, 4}}) {
    Problem p(70, 152, 11);
    const Codebook book = random_codebook(dim, n_codes, 3);
    const VqEncoding e = swept(p, book, 1, 64);
    std::vector<float> scales;
    for (const std::uint16_t s : e.scales) scales.push_back(kernels::f16_to_f32(s));
    const BeamArgs args{.w = p.w.data(),
                        .scales = scales.data(),
                        .n_rows = p.n_rows,
                        .n_cols = p.n_cols,
                        .group = 64,
                        .width = 1};
    EXPECT_EQ(*beam_codes(args, book, p.factor, p.pool), e.indices) << "d " << dim;
  }
}

TEST(Beam, LowersTheErrorInTheMeanTheMoreTheWiderItIs) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {4, 16}, {1, 4}})
    for (const int n_refits : {0, 1}) {
      double before = std::numeric_limits<double>::infinity();
      for (const int beam : {1, 2, 4, 8}) {
        double sum = 0;
        for (const std::uint64_t seed : {1, 2, 3, 4}) {
          Problem p(40, 152, seed);
          const Codebook book = random_codebook(dim, n_codes, seed + 10);
          const VqEncoding e = swept(p, book, beam, 64, n_refits);
          const double exact = p.error_of(decode(e, p, book, 64));
          EXPECT_NEAR(e.error, exact, 1e-4 * exact) << "what it says is what it is";
          sum += e.relative_error;
        }
        EXPECT_LT(sum, 0.995 * before) << "d " << dim << ", beam " << beam;
        before = sum;
      }
    }
}

TEST(Beam, SameBitsForAnyThreadsAndAnyOtherRows) {
  Problem p(130, 136, 41);  // in bands of 64 rows
  const Codebook book = random_codebook(8, 32, 9);
  ThreadPool one(1), four(4);
  const GptqVqOptions options{.group = 64, .beam = 64, .n_descents = 1, .hessian = &p.h};
  const auto with = [&](int n_rows, ThreadPool& pool) {
    return *gptq_vq(p.w.data(), n_rows, p.n_cols, book, p.factor, options, pool, "m");
  };
  const VqEncoding a = with(130, one), b = with(130, four), first = with(67, one);
  EXPECT_EQ(a.indices, b.indices);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.error, b.error);
  EXPECT_TRUE(std::equal(first.indices.begin(), first.indices.end(), a.indices.begin()));
  EXPECT_TRUE(std::equal(first.scales.begin(), first.scales.end(), a.scales.begin()));
}

TEST(Beam, WithoutFeedbackTheNearestCodewordsAreTheBest) {
  Problem p(20, 64, 51);
  const Codebook book = random_codebook(4, 16, 1);
  const auto with = [&](int beam) {
    return gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor,
                   {.group = 16, .compensate = false, .beam = beam}, p.pool, "m")
        ->indices;
  };
  EXPECT_EQ(with(8), with(1));
}

TEST(Beam, AWidthThatIsNoPowerOfTwoIsRefused) {
  Problem p(3, 32, 61);
  for (const int beam : {0, 3, 128})
    EXPECT_THAT(gptq_vq(p.w.data(), 3, 32, random_codebook(4, 16, 1), p.factor,
                        {.group = 16, .beam = beam}, p.pool, "m")
                    .error()
                    .message,
                HasSubstr(fmt::format("a beam of {}, expected 1, 2, 4", beam)));
}

}  // namespace
}  // namespace assay::engine
