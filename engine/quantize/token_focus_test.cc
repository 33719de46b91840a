#include "engine/quantize/token_focus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace assay::engine {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;

Matrix matrix(const std::vector<float>& values, int n_rows, int n_cols) {
  return {.dtype = DType::kF32,
          .n_rows = n_rows,
          .n_cols = n_cols,
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .name = "m"};
}

// Two words of two hidden values: a residual along one axis is sure of its word, one between the
// axes of none.
TEST(TokenFocus, IsOneLessTheSumOfSquaredProbabilitiesWhereAReplyIsPredicted) {
  const std::vector<float> head = {2, 0, 0, 2}, norm = {1, 1};
  ModelWeights w;
  w.lm_head = matrix(head, 2, 2);
  w.final_norm = matrix(norm, 1, 2);
  ModelConfig c;
  c.hidden = c.vocab = 2;
  c.rms_eps = 0;
  const Rows residual = {1, 1, 5, 5, 3, 0,  // a text of three tokens
                         7, 7, 0, 1};       // and one of two
  ThreadPool pool(2);
  // After the norm (√2, 0) · 2: p = 1 / (1 + exp(−2 √2)).
  const double p = 1 / (1 + std::exp(-2 * std::sqrt(2.0)));
  const auto sure = static_cast<float>(1 - p * p - (1 - p) * (1 - p));
  EXPECT_THAT(token_uncertainty(c, w, residual, {3, 2}, {2, 0}, pool, nullptr).value(),
              ElementsAre(0, FloatNear(0.5f, 1e-6f), FloatNear(sure, 1e-6f), FloatNear(0.5f, 1e-6f),
                          FloatNear(sure, 1e-6f)))
      << "the first text's first token predicts no reply";
}

TEST(TokenFocus, WeightsHaveMeanOneAndAreAllOneWithoutFocus) {
  EXPECT_THAT(token_weights({0, 1, 3}, 0), Each(1.0f));
  EXPECT_THAT(token_weights({0, 1, 3, 0}, 0.5), ElementsAre(0.5f, 1.0f, 2.0f, 0.5f));
  EXPECT_THAT(token_weights({0, 1, 3, 0}, 1), ElementsAre(0.0f, 1.0f, 3.0f, 0.0f));
  EXPECT_THAT(token_weights({0, 0}, 1), Each(1.0f)) << "nothing is in doubt anywhere";
}

}  // namespace
}  // namespace assay::engine
