// The definitions of correct, on cases small enough to work out by hand. (That they compute GLM is
// shown by engine/parity_test.cc against Hugging Face transformers.)
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/indexer.h"
#include "kernels/mla_attention.h"
#include "kernels/norm.h"
#include "kernels/project.h"
#include "kernels/rope.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"

namespace assay::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(WeightTypes, DecodeExactly) {
  EXPECT_EQ(bf16_to_f32(0x3FC0), 1.5f);
  EXPECT_EQ(f16_to_f32(0x3E00), 1.5f);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f) << "smallest subnormal";
  EXPECT_EQ(f16_to_f32(0x83FF), -1023 * 0x1p-24f) << "largest subnormal, negative";
  EXPECT_EQ(f16_to_f32(0x7BFF), 65504.0f);
  EXPECT_EQ(f16_to_f32(0xFC00), -kInf);
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7E00)));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(f16_to_f32(0x8000)), 0x80000000u)
      << "negative zero keeps its sign";
}

TEST(ProjectReference, MultipliesRowsAndAccumulatesWhenAsked) {
  const float w[] = {1, 2, 3, /**/ 4, 5, 6}, x[] = {1, 0, -1, /**/ 2, 2, 2};
  float y[4] = {100, 100, 100, 100};
  project_reference({w, WeightType::kF32, 2, 3}, x, 2, 3, y, 2, false);
  EXPECT_EQ(y[0], -2);
  EXPECT_EQ(y[1], -2);
  EXPECT_EQ(y[2], 12);
  EXPECT_EQ(y[3], 30);
  project_reference({w, WeightType::kF32, 2, 3}, x, 1, 3, y, 2, true);
  EXPECT_EQ(y[0], -4);
}

TEST(ProjectReference, ReadsUnalignedHalfPrecisionRows) {
  alignas(4) unsigned char bytes[7] = {0,    0xC0, 0x3F, 0x00,
                                       0x40, 0x80, 0xBF};  // from byte 1: bf16 1.5, 2, -1
  const float x[] = {2, 3, 4};
  float y = 0;
  project_reference({bytes + 1, WeightType::kBf16, 1, 3}, x, 1, 3, &y, 1, false);
  EXPECT_EQ(y, 3 + 6 - 4);
}

TEST(NormReference, RmsDividesByTheRootMeanSquareAndTakesAnEps) {
  const float x[] = {3, 4}, weight[] = {1, 2};
  float y[2];
  rms_norm_reference(x, weight, 0, 2, y);  // rms = sqrt(12.5)
  EXPECT_FLOAT_EQ(y[0], 3 / std::sqrt(12.5f));
  EXPECT_FLOAT_EQ(y[1], 8 / std::sqrt(12.5f));
  const float zero[] = {0, 0};
  rms_norm_reference(zero, weight, 1e-6f, 2, y);
  EXPECT_EQ(y[0], 0) << "eps keeps a zero row finite";
}

TEST(NormReference, LayerNormCentresAndAddsTheBias) {
  const float x[] = {1, 3}, weight[] = {2, 2}, bias[] = {10, 20};
  float y[2];
  layer_norm_reference(x, weight, bias, 0, 2, y);  // mean 2, deviation 1
  EXPECT_FLOAT_EQ(y[0], 8);
  EXPECT_FLOAT_EQ(y[1], 22);
}

TEST(RopeReference, InterleavedTurnsNeighboursAndHalfSplitTurnsHalves) {
  const float cosine[] = {0, 1}, sine[] = {1, 0};  // pair 0 by 90 degrees, pair 1 not at all
  float a[] = {1, 2, 3, 4}, b[] = {1, 2, 3, 4};
  rope_reference(cosine, sine, 4, true, a);
  EXPECT_EQ(a[0], -2);
  EXPECT_EQ(a[1], 1);
  EXPECT_EQ(a[2], 3);
  EXPECT_EQ(a[3], 4);
  rope_reference(cosine, sine, 4, false, b);
  EXPECT_EQ(b[0], -3);
  EXPECT_EQ(b[1], 2);
  EXPECT_EQ(b[2], 1);
  EXPECT_EQ(b[3], 4);
}

TEST(RopeTable, TurnsPairIByPositionTimesThetaToTheMinus2iOverDim) {
  const RopeTable table(10000, 4);
  float cosine[2], sine[2];
  table.angles(0, cosine, sine);
  EXPECT_EQ(cosine[1], 1);
  EXPECT_EQ(sine[1], 0);
  table.angles(3, cosine, sine);
  EXPECT_FLOAT_EQ(cosine[0], std::cos(3.0f));
  EXPECT_FLOAT_EQ(sine[1], std::sin(0.03f));  // 3 / 10000^(2/4)
}

TEST(MlaAttentionReference, WeighsLatentsBySoftmaxOverTheChosenKeys) {
  // kv_lora 1, rope 1; the latent is what is averaged, both parts are scored.
  const float kv[] = {1, 0, /**/ 2, 100, /**/ 4, std::log(3.0f)};
  const float q[] = {0, 1};
  const int keys[] = {0, 2};
  float out = 0;
  mla_attention_reference({.q = q,
                           .kv = kv,
                           .keys = keys,
                           .n_keys = 2,
                           .n_heads = 1,
                           .kv_lora = 1,
                           .rope = 1,
                           .scale = 1,
                           .out = &out});
  EXPECT_FLOAT_EQ(out, (1 * 1 + 3 * 4) / 4.0f);
  mla_attention_reference({.q = q,
                           .kv = kv,
                           .keys = nullptr,
                           .n_keys = 2,
                           .n_heads = 1,
                           .kv_lora = 1,
                           .rope = 1,
                           .scale = 1,
                           .out = &out});
  EXPECT_FLOAT_EQ(out, 2)
      << "without a selection every key counts, and a score of 100 wins without overflow";
}

TEST(IndexerReference, ScoresAddWeightedPositiveDotsOnly) {
  const float q[] = {1, 0, 0, 0, /**/ 0, 2, 0, 0}, weights[] = {1, 10},
              k[] = {4, 6, 0, 0, /**/ -4, 6, 0, 0};
  float scores[2];
  index_scores_reference({.q = q,
                          .weights = weights,
                          .k = k,
                          .n_keys = 2,
                          .n_heads = 2,
                          .head_dim = 4,
                          .scores = scores});
  EXPECT_EQ(scores[0], 1 * 2 + 10 * 6);  // dots 4 and 12, times 4^-0.5
  EXPECT_EQ(scores[1], 60) << "the first head's dot is negative: ReLU";
}

TEST(SelectTopK, TakesTheLargestAndTheEarlierAmongEquals) {
  const float scores[] = {1, 5, 3, 5, 3, 0};
  std::vector<int> chosen;
  float margin = 0;
  select_top_k(scores, 6, 3, &chosen, &margin);
  EXPECT_EQ(chosen, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(margin, 0) << "3 was chosen, an equal 3 was not";
  select_top_k(scores, 6, 2, &chosen, &margin);
  EXPECT_EQ(chosen, (std::vector<int>{1, 3}));
  EXPECT_EQ(margin, 2);
  select_top_k(scores, 6, 9, &chosen, &margin);
  EXPECT_EQ(chosen.size(), 6u);
  EXPECT_EQ(margin, kInf);
  const float broken[] = {kNan, 1, kNan, 2};
  select_top_k(broken, 4, 2, &chosen, nullptr);
  EXPECT_EQ(chosen, (std::vector<int>{1, 3})) << "a NaN ranks last";
}

TEST(RouteReference, TheBiasDecidesTheChoiceButNotTheWeight) {
  // sigmoid: 0.5, 0.75, 0.25, 0.9
  const float logits[] = {0, std::log(3.0f), -std::log(3.0f), std::log(9.0f)},
              bias[] = {0, 0, 1, 0};
  int expert[2];
  float weight[2], margin = 0;
  route_reference({.logits = logits,
                   .bias = bias,
                   .n_experts = 4,
                   .top_k = 2,
                   .normalise = true,
                   .scaling = 2,
                   .expert = expert,
                   .weight = weight,
                   .margin = &margin});
  EXPECT_EQ(expert[0], 2);  // 0.25 + 1 is the largest
  EXPECT_EQ(expert[1], 3);
  EXPECT_FLOAT_EQ(weight[0], 2 * 0.25f / 1.15f);
  EXPECT_FLOAT_EQ(weight[1], 2 * 0.9f / 1.15f);
  EXPECT_NEAR(margin, 0.9 - 0.75, 1e-6);
  route_reference({.logits = logits,
                   .bias = bias,
                   .n_experts = 4,
                   .top_k = 2,
                   .normalise = false,
                   .scaling = 2,
                   .expert = expert,
                   .weight = weight,
                   .margin = nullptr});
  EXPECT_FLOAT_EQ(weight[0], 0.5f);
}

TEST(SwigluReference, GatesBySilu) {
  const float gate[] = {0, std::log(3.0f), -200}, up[] = {7, 2, 5};
  float y[3];
  swiglu_reference(gate, up, 3, y);
  EXPECT_EQ(y[0], 0);
  EXPECT_FLOAT_EQ(y[1], std::log(3.0f) * 0.75f * 2);
  EXPECT_EQ(y[2], 0) << "no overflow far below zero";
}

}  // namespace
}  // namespace assay::kernels
