// Columns that are swept by what goes through them: the codes lie where they lay, and the error is
// less.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/quantize/gptq_scalar.h"
#include "engine/quantize/gptq_testing.h"

namespace assay::engine {
namespace {

HessianFactor ordered(const Problem& p, int dim) {
  return *factor(p.h, 0.01, "test", nullptr, activation_order(p.h, dim));
}

Hessian diagonal_hessian(const std::vector<float>& diagonal, ThreadPool& pool) {
  const int n = static_cast<int>(diagonal.size());
  std::vector<float> x(kernels::row_major(n, n, 0), 0.0f);
  for (int i = 0; i < n; ++i)
    x[kernels::row_major(i, n, i)] = std::sqrt(diagonal[static_cast<std::size_t>(i)]);
  Hessian h(n);
  EXPECT_TRUE(h.add(x.data(), n, pool));
  return h;
}

TEST(ActivationOrder, IsThatOfWholeSubVectors) {
  ThreadPool pool(1);
  const Hessian h = diagonal_hessian({1, 4, 9, 0, 1, 4, 0, 16}, pool);
  EXPECT_EQ(activation_order(h, 2), (std::vector<int>{6, 7, 2, 3, 0, 1, 4, 5}));
  EXPECT_EQ(activation_order(h, 1), (std::vector<int>{7, 2, 1, 5, 0, 4, 3, 6})) << "left first";
  EXPECT_EQ(activation_order(h, 8), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(ActivationOrder, ItsFactorIsOfTheHessianInThatOrder) {
  Problem p(1, 144, 3);
  const HessianFactor f = ordered(p, 8);
  EXPECT_NE(f.column(0), 0);
  EXPECT_EQ(f.damping(), p.factor.damping());
  double worst = 0;
  for (int i = 0; i < p.n_cols; i += 5)
    for (int j = 0; j < p.n_cols; ++j) {
      double sum = 0;
      for (int k = std::max(i, j); k < p.n_cols; ++k)
        sum += static_cast<double>(f.at(i, k)) * static_cast<double>(f.at(j, k));
      const int a = f.column(i), b = f.column(j);
      worst =
          std::max(worst, std::abs(sum - p.damped(a, b)) / std::sqrt(p.h.at(a, a) * p.h.at(b, b)));
    }
  EXPECT_LT(worst, 4 * 0x1p-24) << "R is rounded to float once";
}

// Through the engine's own reader, which knows of no order.
TEST(ActivationOrder, CodesLieWhereTheyLay) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {4, 16}, {1, 4}})
    for (const int beam : {1, 4}) {
      Problem p(70, 152, 11);  // more than a chunk of rows, more than a panel of columns
      const Codebook book = random_codebook(dim, n_codes, 3);
      const auto e =
          gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, ordered(p, dim),
                  {.group = 64, .beam = beam, .n_refits = 1, .n_descents = 0}, p.pool, "m");
      ASSERT_TRUE(e) << e.error().message;
      const double exact = p.error_of(decode(*e, p, book, 64));
      EXPECT_NEAR(e->error, exact, 1e-4 * exact) << "d " << dim << ", beam " << beam;
      const auto descended =
          gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, ordered(p, dim),
                  {.group = 64, .beam = beam, .n_descents = 2, .hessian = &p.h}, p.pool, "m");
      EXPECT_LT(p.error_of(decode(*descended, p, book, 64)), exact) << "d " << dim;
    }
}

// Where columns do not couple no order is better than another.
TEST(ActivationOrder, ADiagonalHessianHasTheSameCodesInAnyOrder) {
  for (const auto& [dim, n_codes] : {std::pair{8, 64}, {1, 4}}) {
    Problem p(40, 160, 5);
    std::vector<float> diagonal;
    for (int c = 0; c < p.n_cols; ++c) diagonal.push_back(1 + std::fmod(7.0f * c, 13.0f));
    p.h = diagonal_hessian(diagonal, p.pool);
    p.factor = *factor(p.h, 0.01, "test");
    const HessianFactor f = ordered(p, dim);
    ASSERT_NE(f.column(0), 0);
    const Codebook book = random_codebook(dim, n_codes, 3);
    const GptqVqOptions options{.group = 32, .n_descents = 1, .hessian = &p.h};
    const auto as_they_lie =
        gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, options, p.pool, "m");
    const auto by_activation =
        gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, f, options, p.pool, "m");
    EXPECT_EQ(by_activation->indices, as_they_lie->indices) << "d " << dim;
    EXPECT_EQ(by_activation->scales, as_they_lie->scales) << "d " << dim;
  }
}

// A few columns carry most: taken last, nothing is left to answer their errors.
TEST(ActivationOrder, LowersTheErrorOfASweep) {
  for (const auto& [dim, n_codes] : {std::pair{8, 256}, {4, 256}, {1, 4}}) {
    double before = 0, after = 0;
    for (std::uint64_t seed = 1; seed < 5; ++seed) {
      Problem p(32, 96, 10 * seed, 20);
      std::vector<float> x = correlated_inputs(400, p.n_cols, 20, seed);
      for (std::size_t i = 0; i < x.size(); ++i)  // larger the further right they lie
        x[i] *= 1 + 0.05f * static_cast<float>(i % static_cast<std::size_t>(p.n_cols));
      p.h = Hessian(p.n_cols);
      ASSERT_TRUE(p.h.add(x.data(), 400, p.pool));
      p.factor = *factor(p.h, 0.01, "test");
      Codebook book = random_codebook(dim, n_codes, seed);
      if (dim == 1) book.values = {-1.51f, -0.453f, 0.453f, 1.51f};  // Max's, of a normal variable
      const GptqVqOptions options{.group = 96, .n_refits = 0};
      before +=
          gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, options, p.pool, "m")->error;
      after += gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, ordered(p, dim), options, p.pool, "m")
                   ->error;
    }
    EXPECT_LT(after, 0.95 * before) << "d " << dim;
  }
}

TEST(ActivationOrder, SameBitsForAnyPool) {
  Problem p(130, 136, 41);
  const Codebook book = random_codebook(8, 64, 9);
  ThreadPool one(1), three(3);
  for (const int beam : {1, 2}) {
    const GptqVqOptions options{.group = 64, .beam = beam, .n_descents = 1, .hessian = &p.h};
    const auto a = gptq_vq(p.w.data(), 130, 136, book, ordered(p, 8), options, one, "m");
    const auto b = gptq_vq(p.w.data(), 130, 136, book, ordered(p, 8), options, three, "m");
    EXPECT_EQ(a->indices, b->indices);
    EXPECT_EQ(a->scales, b->scales);
    EXPECT_EQ(a->error, b->error);
  }
}

TEST(ActivationOrder, ASpinesWordsLieWhereTheyLay) {
  Problem p(24, 136, 71);
  const auto e = gptq_scalar(p.w.data(), p.n_rows, p.n_cols, ordered(p, 1),
                             {.bits = 4, .group = 64}, p.pool, "m");
  ASSERT_TRUE(e) << e.error().message;
  const kernels::ScaledMatrix m{.kind = kernels::ScaledMatrix::Kind::kGptq4,
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
  EXPECT_LT(relative, 0.02);
}

}  // namespace
}  // namespace assay::engine
