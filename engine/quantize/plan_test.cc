// What is decided before anything is encoded: codebooks are fitted to enough of the weights,
// however few their codewords are.
#include "engine/quantize/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/quantize/quantize_testing.h"
#include "engine/quantize/report.h"

namespace assay::engine {
namespace {

// A layer of one expert with normal weights, whose rows count very unequally, as rows of real
// experts do.
struct NormalExpert {
  static constexpr int kWide = 512, kHidden = 320;
  NormalExpert() : values(normals(std::size_t{kWide} * kHidden, 1)) {
    const auto matrix = [&](int rows, int cols, const char* name) {
      return Matrix{.dtype = DType::kF32,
                    .n_rows = rows,
                    .n_cols = cols,
                    .data = reinterpret_cast<const std::byte*>(values.data()),
                    .name = name};
    };
    const auto of = [](int rows, int cols, std::uint64_t seed) {
      ProjectionStats s{.col_energy = std::vector<float>(static_cast<std::size_t>(cols), 1.0f),
                        .row_weight = normals(static_cast<std::size_t>(rows), seed)};
      for (float& w : s.row_weight) w = std::exp(1.5f * w);
      return s;
    };
    weights.layers.resize(1);
    weights.layers[0].experts.push_back({.gate = matrix(kWide, kHidden, "gate"),
                                         .up = matrix(kWide, kHidden, "up"),
                                         .down = matrix(kHidden, kWide, "down")});
    stats = {{{.n_tokens = 100,
               .gate = of(kWide, kHidden, 2),
               .up = of(kWide, kHidden, 3),
               .down = of(kHidden, kWide, 4)}}};
  }
  std::vector<float> values;
  ModelWeights weights;
  ModelStats stats;
};

double distortion_of(const Codebook& book, const std::vector<float>& values) {
  double sum = 0;
  for (std::size_t i = 0; i + static_cast<std::size_t>(book.dim) <= values.size();
       i += static_cast<std::size_t>(book.dim)) {
    float least = INFINITY;
    for (int k = 0; k < book.n_codes; ++k) {
      float d = 0;
      for (int j = 0; j < book.dim; ++j) {
        const float gap =
            values[i + static_cast<std::size_t>(j)] -
            book.values[static_cast<std::size_t>(k) * static_cast<std::size_t>(book.dim) +
                        static_cast<std::size_t>(j)];
        d += gap * gap;
      }
      least = std::min(least, d);
    }
    sum += static_cast<double>(least);
  }
  return sum / static_cast<double>(values.size());
}

// Each kind of codebook is the better one by its own measure: of all weights alike, or of those
// that matter.
TEST(Plan, CodebooksAreFittedToWhatTheyAreToldToCount) {
  const NormalExpert expert;
  ThreadPool pool(1);
  Recipe recipe;
  recipe.tiers = {{"1", 8, 256}};
  recipe.bits = 1;
  const auto by_weight = make_plan(expert.weights, expert.stats, recipe, pool, {});
  recipe.codebook_power = 0;
  const auto alike = make_plan(expert.weights, expert.stats, recipe, pool, {});
  ASSERT_TRUE(by_weight.has_value() && alike.has_value());
  EXPECT_LT(distortion_of(alike->codebooks[0], expert.values),
            0.995 * distortion_of(by_weight->codebooks[0], expert.values));
  EXPECT_LT(by_weight->predicted_error, 0.995 * alike->predicted_error);
}

// A projection that is said to keep more of its error gets more bits; what is predicted of each
// module is as it was.
TEST(Plan, TiersFollowWhatAProjectionKeepsOfItsError) {
  const NormalExpert expert;
  ThreadPool pool(1);
  Recipe recipe;
  recipe.tiers = {{"1", 8, 256}, {"2", 4, 256}};
  recipe.bits = 1.5;
  const auto bits_of_down = [&](double kept) {
    recipe.kept_down = kept;
    const auto plan = make_plan(expert.weights, expert.stats, recipe, pool, {});
    EXPECT_TRUE(plan.has_value());
    if (!plan.has_value()) return std::pair{0.0, 0.0};
    const auto tier = static_cast<std::size_t>(plan->tier[0][0][2]);
    return std::pair{recipe.tiers[tier].bits(), plan->error[0][0][2]};
  };
  EXPECT_EQ(bits_of_down(0.01).first, 1);
  EXPECT_EQ(bits_of_down(100).first, 2);
  recipe.tiers = {{"1", 8, 256}};
  recipe.bits = 1;
  EXPECT_NEAR(bits_of_down(100).second, bits_of_down(1).second, 1e-9);
}

// A row of GLM-5.2 takes 25 million multiply-adds, a matrix 2,000 times as many.
TEST(Plan, AsksAtEveryRowAndEveryMatrixWhetherToGoOn) {
  const NormalExpert expert;
  ThreadPool pool(1);
  Recipe recipe;
  recipe.tiers = {{"s1", 1, 2}, {"s2", 1, 4}};
  int n_asked = 0, stop_at = 1 << 30;
  Stop stop([&] { return ++n_asked >= stop_at; });
  const PlanHooks hooks{.on_progress = {}, .stop = &stop, .state = nullptr};
  const auto books = fit_codebooks(expert.weights, expert.stats, recipe, pool, hooks);
  ASSERT_TRUE(books) << books.error().message;
  EXPECT_GT(n_asked, 2 * 3) << "sub-vectors of three matrices, twice";
  const auto predicted = [&] {
    n_asked = 0;
    return predict_errors(expert.weights, expert.stats, *books, recipe, pool, hooks);
  };
  ASSERT_TRUE(predicted());
  EXPECT_GE(n_asked, 3 + 2 * (2 * NormalExpert::kWide + NormalExpert::kHidden));
  stop_at = 500;
  const auto stopped = predicted();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().message, "interrupted");
  EXPECT_EQ(n_asked, 500);
}

// Max 1960, "Quantizing for minimum distortion", table I: what the best codewords of one value
// leave of a normal distribution. The scalar arm that GPTQ-VQ is measured against rests on these.
TEST(Plan, ScalarCodebooksAreNearlyLloydAndMaxs) {
  const NormalExpert expert;
  const std::vector<float> fresh = normals(100'000, 9);
  ThreadPool pool(1);
  for (const std::uint64_t seed : {0, 1, 2}) {
    Recipe recipe;
    recipe.tiers = scalar_tiers();
    recipe.bits = 1.8;
    recipe.seed = seed;
    const auto plan = make_plan(expert.weights, expert.stats, recipe, pool, {});
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    const std::vector<double> best = {0.3634, 0.1175, 0.03454};
    for (std::size_t t = 0; t < best.size(); ++t) {
      double distortion = 0;
      for (const float x : fresh) {
        float least = INFINITY;
        for (const float c : plan->codebooks[t].values) least = std::min(least, (x - c) * (x - c));
        distortion += static_cast<double>(least) / static_cast<double>(fresh.size());
      }
      EXPECT_LT(distortion, 1.04 * best[t]) << recipe.tiers[t].name << ", seed " << seed;
    }
  }
}

// Rows count as in the prediction of an error, so they cancel: what is left of a normal
// distribution is Lloyd and Max's distortion.
TEST(Plan, AModulesPredictedErrorIsRelativeToItsOutput) {
  const NormalExpert expert;
  ThreadPool pool(1);
  const std::vector<double> best = {0.3634, 0.1175, 0.03454};
  for (std::size_t t = 0; t < best.size(); ++t) {
    Recipe recipe;
    recipe.tiers = {scalar_tiers()[t]};
    recipe.bits = recipe.tiers.front().bits();
    const auto plan = make_plan(expert.weights, expert.stats, recipe, pool, {});
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    for (const double error : plan->error[0][0]) EXPECT_NEAR(error, best[t], 0.1 * best[t]) << t;
  }
}

TEST(Plan, PredictedErrorsAreRankedOverAllModulesAndWithinTiers) {
  Json modules = {{"o_proj", {{"format", "gptq 4 bit"}, {"relative_error", 0.5}}}};
  const auto add = [&](const char* tier, double predicted, double measured) {
    const std::string projection = measured < 0.1 ? "down_proj" : "up_proj";
    modules[fmt::format("{}.{}", modules.size(), projection)] = {{"format", "vq"},
                                                                 {"tier", tier},
                                                                 {"predicted_error", predicted},
                                                                 {"relative_error", measured}};
  };
  add("1", 0.3, 0.20);
  add("1", 0.4, 0.21);
  add("1", 0.5, 0.19);
  add("2", 0.1, 0.05);
  add("2", 0.2, 0.06);
  add("3", 0.0, 0.01);
  const Json ranks = prediction_json(modules);
  // Ranks 1 … 6 against 1, 2, 3, 5, 6, 4: 1 − 6 · (1 + 1 + 4) / (6 · 35).
  EXPECT_NEAR(ranks["all"]["spearman"].get<double>(), 1 - 36.0 / 210, 1e-12);
  EXPECT_EQ(ranks["all"]["n_modules"], 6);
  EXPECT_NEAR(ranks["all"]["measured_over_predicted"].get<double>(), 0.72 / 1.5, 1e-12);
  EXPECT_EQ(ranks["projections"]["down_proj"]["spearman"], 1.0);
  EXPECT_NEAR(ranks["projections"]["up_proj"]["measured_over_predicted"].get<double>(), 0.6 / 1.2,
              1e-12);
  EXPECT_NEAR(ranks["tiers"]["1"]["spearman"].get<double>(), -0.5, 1e-12);
  EXPECT_EQ(ranks["tiers"]["2"]["spearman"], 1.0);
  EXPECT_TRUE(ranks["tiers"]["3"]["spearman"].is_null()) << "of one module: not known";
}

}  // namespace
}  // namespace assay::engine
