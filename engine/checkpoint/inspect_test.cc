#include "engine/checkpoint/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/checkpoint/tiny_checkpoint.h"

namespace assay::engine {
namespace {

CheckpointSummary summary_of(const fs::path& dir) {
  const auto checkpoint = Checkpoint::open(dir);
  EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  return *inspect(*checkpoint);
}

CheckpointSummary summary_of(const Json& config, const TinyTensors& tensors) {
  const TinyCheckpoint tiny;
  tiny.write("config.json", config.dump());
  tiny.write_single(tensors);
  return summary_of(tiny.dir);
}

RoleSummary role(const CheckpointSummary& summary, std::string_view name) {
  const auto found = std::find_if(summary.roles.begin(), summary.roles.end(),
                                  [name](const RoleSummary& r) { return r.role == name; });
  return found == summary.roles.end() ? RoleSummary{} : *found;
}

// Counted by hand from config.json.
TEST(Inspect, CountsMicroGlm) {
  const auto s = summary_of(fs::path(ASSAY_SOURCE_DIR) / "golden/micro-glm/model");
  const std::int64_t expert = 3 * 96 * 320;
  EXPECT_EQ(s.n_parameters, 15'106'528);
  EXPECT_EQ(role(s, "routed experts").n_tensors, 6 * 16 * 3);
  EXPECT_EQ(role(s, "routed experts").n_parameters, 6 * 16 * expert);
  EXPECT_EQ(role(s, "shared experts").n_parameters, 6 * expert);
  EXPECT_EQ(role(s, "dense MLP").n_parameters, 3 * 768 * 320);
  EXPECT_EQ(role(s, "router").n_parameters, 6 * (16 * 320 + 16));
  EXPECT_EQ(role(s, "router").dtypes, "BF16 + F32");
  EXPECT_EQ(role(s, "indexer").n_parameters, 4 * (256 * 192 + 64 * 320 + 4 * 320 + 2 * 64));
  EXPECT_EQ(role(s, "attention").n_parameters,
            7 * (192 * 320 + 384 * 192 + 160 * 320 + 576 * 128 + 320 * 384));
  EXPECT_EQ(role(s, "norms").n_parameters, 7 * (2 * 320 + 192 + 128) + 320);
  EXPECT_EQ(role(s, "embedding").n_parameters, 3072 * 320);
  EXPECT_EQ(role(s, "lm head").n_parameters, 3072 * 320);
  // Not read for a token: all rows of the embedding but one, and 12 of 16 experts.
  EXPECT_EQ(s.n_active_parameters, 15'106'528 - 3071 * 320 - 6 * 12 * expert);
  EXPECT_EQ(s.n_active_bytes, 2 * s.n_active_parameters + 2 * 6 * 16) << "bf16, but f32 biases";
}

TEST(Inspect, BothExpertLayoutsHaveEqualCounts) {
  const auto a = summary_of(tiny_config(), tiny_tensors());
  const auto b = summary_of(tiny_config(), stacked(tiny_tensors()));
  EXPECT_EQ(a.n_parameters, b.n_parameters);
  EXPECT_EQ(a.n_active_parameters, b.n_active_parameters);
  EXPECT_EQ(a.n_active_bytes, b.n_active_bytes);
  EXPECT_EQ(role(b, "routed experts").n_tensors, 4);
}

TEST(Inspect, ATiedEmbeddingIsReadWholeAndOnce) {
  Json tied = tiny_config();
  tied["tie_word_embeddings"] = true;
  TinyTensors with_copy = tiny_tensors(), without = tiny_tensors();
  with_copy["lm_head.weight"] = with_copy["model.embed_tokens.weight"];
  without.erase("lm_head.weight");
  const auto untied = summary_of(tiny_config(), tiny_tensors());
  EXPECT_EQ(summary_of(tied, without).n_active_parameters, untied.n_active_parameters - 16);
  EXPECT_EQ(summary_of(tied, with_copy).n_active_parameters, untied.n_active_parameters - 16);
}

TEST(Inspect, WhatIsStoredButNotUsedIsNotActive) {
  Json config = tiny_config();
  config["num_nextn_predict_layers"] = 1;
  TinyTensors tensors = tiny_tensors();
  const auto before = summary_of(config, tensors);
  tensors["model.layers.3.mlp.experts.0.up_proj.weight"] = {"BF16", {5}, std::string(10, 'x')};
  tensors["mystery"] = {"I8", {3}, "abc"};
  const auto after = summary_of(config, tensors);
  EXPECT_EQ(role(after, "not used (MTP)").n_parameters, 5);
  EXPECT_EQ(role(after, "other").n_parameters, 3);
  EXPECT_EQ(after.n_parameters, before.n_parameters + 8);
  EXPECT_EQ(after.n_active_parameters, before.n_active_parameters);
  EXPECT_EQ(after.n_active_bytes, before.n_active_bytes);
}

}  // namespace
}  // namespace assay::engine
