#include "engine/checkpoint/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "engine/checkpoint/inspect.h"
#include "engine/checkpoint/tiny_checkpoint.h"

namespace assay::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string error_of(const TinyTensors& tensors, bool check_finite = true) {
  const TinyCheckpoint tiny;
  tiny.write_single(tensors);
  const auto checkpoint = Checkpoint::open(tiny.dir);
  if (!checkpoint) return checkpoint.error().message;
  const auto weights = bind_weights(*checkpoint, check_finite);
  return weights ? "" : weights.error().message;
}

TEST(Weights, MicroGlmBindsWithEveryParameter) {
  const auto checkpoint =
      Checkpoint::open(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/model");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  const auto weights = bind_weights(*checkpoint);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  EXPECT_EQ(weights->layers.size(), 7u);
  EXPECT_EQ(weights->layers[6].experts.size(), 16u);
  const auto summary = inspect(*checkpoint);
  EXPECT_EQ(summary->n_parameters, 15'106'528);
  std::int64_t sum = 0;
  for (const RoleSummary& r : summary->roles) sum += r.n_parameters;
  EXPECT_EQ(sum, summary->n_parameters) << "every tensor has one role";
}

TEST(Weights, StackedAndSeparateExpertsAreTheSameWeights) {
  const TinyCheckpoint a, b;
  a.write_single(tiny_tensors());
  b.write_single(stacked(tiny_tensors()));
  const auto ca = Checkpoint::open(a.dir), cb = Checkpoint::open(b.dir);
  ASSERT_TRUE(cb.has_value()) << cb.error().message;
  const auto wa = bind_weights(*ca), wb = bind_weights(*cb);
  ASSERT_TRUE(wb.has_value()) << wb.error().message;
  for (int l = 1; l < 3; ++l)
    for (int e = 0; e < 3; ++e)
      for (const auto part : {&MlpWeights::gate, &MlpWeights::up, &MlpWeights::down}) {
        const Matrix &ma = wa->layers[l].experts[e].*part, &mb = wb->layers[l].experts[e].*part;
        ASSERT_EQ(ma.n_rows, mb.n_rows);
        ASSERT_EQ(ma.n_cols, mb.n_cols);
        EXPECT_EQ(std::memcmp(ma.data, mb.data, 2u * ma.n_rows * ma.n_cols), 0) << mb.name;
      }
}

TEST(Weights, MissingSurplusAndMisshapenTensorsAreListedByName) {
  TinyTensors t = tiny_tensors();
  t.erase("model.layers.2.mlp.experts.1.up_proj.weight");
  t["model.layers.2.self_attn.indexer.wk.weight"] =
      t["model.layers.1.self_attn.indexer.wk.weight"];  // a shared layer has none
  t["model.norm.weight"].shape = {4, 4};
  EXPECT_THAT(error_of(t),
              AllOf(HasSubstr("missing: model.layers.2.mlp.experts.1.up_proj.weight [10, 16]"),
                    HasSubstr("surplus: model.layers.2.self_attn.indexer.wk.weight"),
                    HasSubstr("model.norm.weight: shape [4, 4], expected [16]")));
  TinyTensors none;
  none["x"] = {"F32", {1}, std::string(4, '\0')};
  EXPECT_THAT(error_of(none), HasSubstr("more")) << "a long list is cut";
}

TEST(Weights, AWrongDtypeIsNamed) {
  TinyTensors t = tiny_tensors();
  t["model.norm.weight"] = {"I32", {16}, std::string(64, '\0')};
  EXPECT_THAT(error_of(t), AllOf(HasSubstr("model.norm.weight"), HasSubstr("I32")));
}

TEST(Weights, NansAndInfinitiesAreReportedByTensorAndElement) {
  for (const auto& [dtype, bytes] : {std::pair{"BF16", std::string("\xC0\x7F", 2)},
                                     {"F16", std::string("\x00\xFC", 2)},
                                     {"F32", std::string("\x00\x00\x80\x7F", 4)}}) {
    TinyTensors t = tiny_tensors();
    TinyTensor& norm = t["model.norm.weight"];
    norm = {dtype, {16}, std::string(16 * bytes.size(), '\0')};
    norm.bytes.replace(5 * bytes.size(), bytes.size(), bytes);
    EXPECT_THAT(error_of(t), AllOf(HasSubstr("model.norm.weight"), HasSubstr("element 5")))
        << dtype;
    EXPECT_EQ(error_of(t, false), "") << "the check can be left out";
  }
}

TEST(Weights, AMisspeltKeyThatMayBeWhyIsNamed) {
  const TinyCheckpoint tiny;
  TinyTensors t = tiny_tensors();
  t["mystery"] = t["model.norm.weight"];
  tiny.write_single(t);
  Json config = tiny_config();
  config.erase("norm_topk_prob");
  config["norm_topk_prb"] = true;
  tiny.write("config.json", config.dump());
  EXPECT_THAT(
      bind_weights(*Checkpoint::open(tiny.dir)).error().message,
      AllOf(HasSubstr("config.json: norm_topk_prb has no effect: is norm_topk_prob meant?\n"),
            HasSubstr("surplus: mystery")));
}

TEST(Weights, MtpLayersAreKnownAndSkipped) {
  const TinyCheckpoint tiny;
  TinyTensors t = tiny_tensors();
  t["model.layers.3.eh_proj.weight"] = t["model.norm.weight"];
  tiny.write_single(t);
  EXPECT_FALSE(bind_weights(*Checkpoint::open(tiny.dir)).has_value())
      << "without MTP in the config it is surplus";
  Json config = tiny_config();
  config["num_nextn_predict_layers"] = 1;
  tiny.write("config.json", config.dump());
  EXPECT_TRUE(bind_weights(*Checkpoint::open(tiny.dir)).has_value());
}

TEST(Weights, TiedEmbeddingsServeAsTheHead) {
  const TinyCheckpoint tiny;
  TinyTensors t = tiny_tensors();
  t.erase("lm_head.weight");
  tiny.write_single(t);
  Json config = tiny_config();
  config["tie_word_embeddings"] = true;
  tiny.write("config.json", config.dump());
  const auto checkpoint = Checkpoint::open(tiny.dir);
  const auto w = bind_weights(*checkpoint);
  ASSERT_TRUE(w.has_value()) << w.error().message;
  EXPECT_EQ(w->lm_head.data, w->embed.data);

  // A stored copy does no harm; another head under the same flag is a contradiction.
  t["lm_head.weight"] = t["model.embed_tokens.weight"];
  tiny.write_single(t);
  const auto copied = Checkpoint::open(tiny.dir);
  const auto bound = bind_weights(*copied);
  ASSERT_TRUE(bound.has_value()) << bound.error().message;
  EXPECT_EQ(bound->lm_head.data, bound->embed.data);
  t["lm_head.weight"].bytes[7] ^= 1;
  tiny.write_single(t);
  const auto other = bind_weights(*Checkpoint::open(tiny.dir));
  ASSERT_FALSE(other.has_value());
  EXPECT_THAT(other.error().message,
              AllOf(HasSubstr("tie_word_embeddings"), HasSubstr("lm_head.weight")));
}

}  // namespace
}  // namespace assay::engine
