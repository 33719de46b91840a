// Whether to go on is asked within everything that takes long at GLM-5.2's sizes, and an answer
// ends it with an error, never with half a result.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/quantize/beam_sweep.h"
#include "engine/quantize/gptq_scalar.h"
#include "engine/quantize/gptq_testing.h"

namespace assay::engine {
namespace {

// Stops at an ask, and counts them.
struct Asked {
  explicit Asked(int stop_at = -1) : stop([this, stop_at] { return n++ == stop_at; }) {}
  std::atomic<int> n = 0;
  Stop stop;
};

// `work` is asked at least `n_least` times, and ends at whichever ask is answered.
template <class Work>
void expect_asked(int n_least, const Work& work) {
  Asked all;
  ASSERT_TRUE(work(&all.stop));
  EXPECT_GE(all.n, n_least);
  for (int at = 0; at < all.n; at += 1 + all.n / 9) {
    Asked some(at);
    const auto result = work(&some.stop);
    ASSERT_FALSE(result) << "ask " << at << " of " << all.n;
    EXPECT_EQ(result.error().message, "interrupted");
    EXPECT_EQ(some.n, at + 1) << "a stop is asked for once";
  }
}

TEST(Stop, SumsOfHessiansAskForEveryBlockOfTokensInEveryTile) {
  constexpr int kDim = 300, kTokens = 1100;  // 2 × 2 tiles less one, 3 blocks
  ThreadPool pool(1);
  const std::vector<float> x = normals(kDim * kTokens, 1);
  expect_asked(3 * 3, [&](Stop* stop) {
    Hessian h(kDim);
    return h.add(x.data(), kTokens, pool, stop);
  });
}

TEST(Stop, FactorsAskForEveryBlockOfColumns) {
  const Problem p(2, 520, 2);  // blocks of 64 columns, panels of 128
  expect_asked(520 + 9 + 5, [&](Stop* stop) { return factor(p.h, 0.01, "m", stop); });
  const Problem wide(2, 900, 2);  // 112 columns, and below the first of them 768 and 20 rows
  expect_asked(900 + 9 + 9 + 8, [&](Stop* stop) { return factor(wide.h, 0.01, "m", stop); });
}

TEST(Stop, ShrinkingAsksForEveryRow) {
  const Problem p(2, 300, 2);
  expect_asked(300, [&](Stop* stop) { return shrink(p.h, p.h, 512, stop); });
}

TEST(Stop, EveryWayToEncodeAMatrixAsksForItsRowsInEveryPanel) {
  const Problem p(130, 384, 3);
  ThreadPool pool(1);
  const Codebook book = random_codebook(4, 16, 4);
  GptqVqOptions options{.group = 64, .n_descents = 1, .hessian = &p.h};
  const auto vq = [&](Stop* stop) {
    options.stop = stop;
    return gptq_vq(p.w.data(), p.n_rows, p.n_cols, book, p.factor, options, pool, "m");
  };
  // 3 chunks × 3 panels of two sweeps, a descent and the energy.
  expect_asked(4 * 9, vq);
  options.beam = 4;
  expect_asked(4 * 9 + 2 * 4 * 9, vq);
  expect_asked(2 * 9, [&](Stop* stop) {
    const Problem q(136, 384, 5);
    return gptq_scalar(q.w.data(), q.n_rows, q.n_cols, q.factor,
                       {.bits = 4, .group = 64, .stop = stop}, pool, "m");
  });
}

TEST(Stop, AsksChangeNoBits) {
  const Problem p(70, 320, 6);
  Asked asked;
  const auto with = factor(p.h, 0.01, "m", &asked.stop);
  ASSERT_TRUE(with);
  for (int i = 0; i < 320; ++i)
    for (int j = i; j < 320; ++j) ASSERT_EQ(with->at(i, j), p.factor.at(i, j)) << i << ", " << j;
}

// H = B Bᵀ with B upper triangular, of small integers: R is B to the bit, whatever the blocks.
TEST(Stop, AFactorInBlocksIsExactOnIntegers) {
  for (const int dim : {300, 900}) {
    const auto n = static_cast<std::size_t>(dim);
    std::vector<float> columns(n * n, 0.0f);  // row t: column t of B
    for (int t = 0; t < dim; ++t)
      for (int i = 0; i <= t; ++i)
        columns[static_cast<std::size_t>(t) * n + static_cast<std::size_t>(i)] =
            i == t ? 64.0f : static_cast<float>((i * 7 + t * 3) % 3 - 1);
    ThreadPool pool(1);
    Hessian h(dim);
    ASSERT_TRUE(h.add(columns.data(), dim, pool));
    const auto f = factor(h, 1e-17, "m");
    ASSERT_TRUE(f) << f.error().message;
    for (int t = 0; t < dim; ++t)
      for (int i = 0; i <= t; ++i)
        ASSERT_EQ(f->at(i, t), columns[static_cast<std::size_t>(t * dim + i)]) << i << ", " << t;
  }
}

}  // namespace
}  // namespace assay::engine
