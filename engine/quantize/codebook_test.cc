#include "engine/quantize/codebook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/quantize/binary16.h"
#include "engine/quantize/quantize_testing.h"

namespace assay::engine {
namespace {

using ::testing::HasSubstr;

double cost_of(const std::vector<float>& x, const std::vector<float>& w, const Codebook& book) {
  double total = 0;
  const std::size_t d = static_cast<std::size_t>(book.dim);
  for (std::size_t p = 0; p < x.size(); p += d) {
    double best = 1e300;
    for (std::size_t k = 0; k < book.values.size(); k += d) {
      double cost = 0;
      for (std::size_t i = 0; i < d; ++i) {
        const double gap = static_cast<double>(x[p + i]) - static_cast<double>(book.values[k + i]);
        cost += static_cast<double>(w[p + i]) * gap * gap;
      }
      best = std::min(best, cost);
    }
    total += best;
  }
  return total;
}

Result<KMeansResult> fit(const std::vector<float>& x, const std::vector<float>& w, int dim,
                         KMeansOptions options, int n_threads = 1) {
  ThreadPool pool(n_threads);
  return fit_codebook(x.data(), w.data(), static_cast<std::int64_t>(x.size()) / dim, dim, options,
                      pool);
}

TEST(Codebook, ClustersApartAreFoundExactly) {
  const std::vector<float> corners = {0, 0, 8, 0, 0, 8, 8, 8};
  std::vector<float> x;
  for (int copy = 0; copy < 40; ++copy)
    for (const float offset : {-0.25f, 0.25f})
      for (const float v : corners) x.push_back(v + offset);
  const auto result = fit(x, std::vector<float>(x.size(), 1), 2, {.n_codes = 4});
  ASSERT_TRUE(result.has_value()) << result.error().message;
  std::vector<std::pair<float, float>> found;
  for (std::size_t k = 0; k < 8; k += 2)
    found.emplace_back(result->codebook.values[k], result->codebook.values[k + 1]);
  std::sort(found.begin(), found.end());
  EXPECT_EQ(found, (std::vector<std::pair<float, float>>{{0, 0}, {0, 8}, {8, 0}, {8, 8}}));
  EXPECT_DOUBLE_EQ(result->cost, 320 * 2 * 0.0625);
}

// Max 1960, "Quantizing for minimum distortion", table I: the optimal quantisers of a normal
// distribution. The ablation's scalar arm rests on these.
TEST(Codebook, InOneDimensionItIsLloydAndMaxsQuantiser) {
  const std::vector<float> x = normals(200'000, 1), w(x.size(), 1.0f);
  const KMeansOptions options{.max_iterations = 400, .tolerance = 1e-7};
  const auto check = [&](int n_codes, const std::vector<double>& positive, double distortion) {
    KMeansOptions o = options;
    o.n_codes = n_codes;
    auto result = fit(x, w, 1, o);
    ASSERT_TRUE(result.has_value()) << result.error().message;
    std::vector<float> found = result->codebook.values;
    std::sort(found.begin(), found.end());
    for (std::size_t i = 0; i < positive.size(); ++i) {
      EXPECT_NEAR(found[positive.size() + i], positive[i], 0.03);
      EXPECT_NEAR(found[positive.size() - 1 - i], -positive[i], 0.03);
    }
    EXPECT_NEAR(result->cost / 200'000, distortion, 0.01 * distortion + 1e-4);
  };
  check(2, {0.7980}, 0.3634);
  check(4, {0.4528, 1.510}, 0.1175);
  check(8, {0.2451, 0.7560, 1.344, 2.152}, 0.03454);
}

TEST(Codebook, WeightsDecideWhoseErrorCounts) {
  // Two points per side of dimension 1, one codeword each: the mean is pulled to the heavy one.
  const std::vector<float> x = {0, 1, 1, 1, 100, 2, 101, 2};
  const std::vector<float> w = {3, 1, 1, 1, 1, 1, 1, 1};
  const auto result = fit(x, w, 2, {.n_codes = 2});
  ASSERT_TRUE(result.has_value());
  const auto& values = result->codebook.values;
  EXPECT_EQ(std::min(values[0], values[2]), 0.25f);
  EXPECT_EQ(std::max(values[0], values[2]), 100.5f);
}

TEST(Codebook, TheCostIsThatOfTheRoundedCodebook) {
  const std::vector<float> x = normals(4000, 2);
  std::vector<float> w = normals(4000, 3);
  for (float& v : w) v *= v;
  for (const int dim : {1, 2, 4, 8, 16}) {
    const auto result = fit(x, w, dim, {.n_codes = 16});
    ASSERT_TRUE(result.has_value());
    for (const float v : result->codebook.values) EXPECT_EQ(v, round_to_f16(v));
    const double expected = cost_of(x, w, result->codebook);
    EXPECT_NEAR(result->cost, expected, 1e-5 * expected) << dim;
  }
}

TEST(Codebook, HasTheSameBitsForAnyThreadCountAndOthersForAnotherSeed) {
  const std::vector<float> x = normals(40'000, 4), w(x.size(), 1.0f);
  const KMeansOptions options{.n_codes = 64, .max_iterations = 8};
  const auto one = fit(x, w, 4, options, 1), three = fit(x, w, 4, options, 3);
  EXPECT_EQ(one->codebook.values, three->codebook.values);
  EXPECT_EQ(one->cost, three->cost);
  EXPECT_NE(one->codebook.values,
            fit(x, w, 4, {.n_codes = 64, .max_iterations = 8, .seed = 1})->codebook.values);
}

// Within an iteration, not only between: at GLM-5.2's size one takes minutes.
TEST(Codebook, AsksAtEveryFirstCentreAndEveryBlockOfPointsWhetherToGoOn) {
  const std::vector<float> x = normals(std::size_t{40} * 64 * 2, 6), w(x.size(), 1.0f);
  const KMeansOptions options{.n_codes = 16, .max_iterations = 3, .tolerance = 0};
  constexpr int kAsked = 16 + 40 * 3 + 40;  // centres, blocks of each iteration, those of the cost
  ThreadPool pool(1);
  int n_asked = 0, stop_at = 1 << 30;
  std::vector<std::string> seen;
  const auto fitted = [&] {
    n_asked = 0;
    seen.clear();
    Stop stop([&] { return ++n_asked >= stop_at; });
    return fit_codebook(x.data(), w.data(), 40 * 64, 2, options, pool,
                        {[&](std::string_view what, int done, int total) {
                           seen.push_back(fmt::format("{} {}/{}", what, done, total));
                         },
                         &stop});
  };
  const auto whole = fitted();
  ASSERT_TRUE(whole);
  EXPECT_GE(n_asked, kAsked);
  EXPECT_THAT(seen, ::testing::ElementsAre("first centres 0/16", "iteration 0/3", "iteration 1/3",
                                           "iteration 2/3"));
  EXPECT_EQ(whole->codebook.values, fit(x, w, 2, options)->codebook.values);
  const int n_whole = n_asked;
  for (stop_at = 1; stop_at <= n_whole; ++stop_at) {
    const auto stopped = fitted();
    ASSERT_FALSE(stopped) << stop_at;
    EXPECT_EQ(stopped.error().message, "interrupted");
    EXPECT_EQ(n_asked, stop_at) << "nothing is begun once it was told to stop";
  }
}

TEST(Codebook, IterationsOnlyImproveIt) {
  const std::vector<float> x = normals(8000, 5), w(x.size(), 1.0f);
  double before = 1e300;
  for (int n = 1; n < 12; ++n) {
    const auto result = fit(x, w, 4, {.n_codes = 32, .max_iterations = n, .tolerance = 0});
    EXPECT_LE(result->cost, before * (1 + 1e-4)) << n;  // rounding to binary16 may cost 2^-11 each
    before = result->cost;
  }
}

// A weight of zero lets k-means++ draw a centre that no point prefers; here all mass of the seeds
// is at one end, so clusters start empty.
TEST(Codebook, EmptyClustersAreReseeded) {
  std::vector<float> x(3000, 0.0f), w(3000, 1.0f);
  for (int i = 0; i < 20; ++i)
    x[150 * static_cast<std::size_t>(i) + 75] = static_cast<float>(i + 1);
  // 64 seeds per codeword are all 3000 points: costs of duplicates are zero, so 21 distinct values
  // and 21 codewords must give a cost of zero.
  const auto result = fit(x, w, 1, {.n_codes = 21, .max_iterations = 50, .tolerance = 0});
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->cost, 0);
  // More codewords than distinct values: no cost, no hang.
  EXPECT_EQ(fit(x, w, 1, {.n_codes = 40})->cost, 0);
}

TEST(Codebook, BadInputIsRefused) {
  const std::vector<float> one(8, 1.0f);
  EXPECT_THAT(fit(one, one, 3, {.n_codes = 2}).error().message, HasSubstr("dimension 3"));
  EXPECT_THAT(fit(one, one, 4, {.n_codes = 3}).error().message, HasSubstr("2 points for 3"));
  std::vector<float> bad = one;
  bad[5] = std::nanf("");
  EXPECT_THAT(fit(bad, one, 4, {.n_codes = 2}).error().message, HasSubstr("point 1 has value nan"));
  bad[5] = -1;
  EXPECT_THAT(fit(one, bad, 4, {.n_codes = 2}).error().message, HasSubstr("weight -1"));
}

TEST(CodebookRefit, IsTheWeightedLeastSquaresSolution) {
  const Codebook book{2, 3, {1, 1, 2, 2, 3, 3}};
  CodebookRefit refit(book);
  const std::vector<float> values = {4, 8, 6, 2};  // codes 0 and 0, scales 2 and 1
  const std::vector<std::uint16_t> indices = {0, 0}, scales = {f32_to_f16(2), f32_to_f16(1)};
  const std::vector<double> diagonal = {1, 1, 4, 0};
  refit.add(values.data(), 1, 4, indices.data(), scales.data(), 2, diagonal.data());
  // c0: (1·2·4 + 4·1·6) / (1·4 + 4·1) = 4; c1: (1·2·8) / (1·4) = 4. Codewords 1 and 2 are unused.
  EXPECT_EQ(refit.codebook().values, (std::vector<float>{4, 4, 2, 2, 3, 3}));
}

}  // namespace
}  // namespace assay::engine
