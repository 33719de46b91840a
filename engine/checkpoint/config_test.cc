#include "engine/checkpoint/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "base/check.h"
#include "engine/checkpoint/tiny_checkpoint.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Result<ModelConfig> with(const std::function<void(Json&)>& change) {
  Json json = tiny_config();
  change(json);
  return parse_config(json.dump(), "config.json");
}

std::string error_of(const std::function<void(Json&)>& change) {
  const auto c = with(change);
  EXPECT_FALSE(c.has_value());
  return c ? "" : c.error().message;
}

// facts of GLM-5.2's config.json: 78 layers, indexers by list.
Json glm_5_2() {
  Json j = Json::parse(
      R"({"model_type": "glm_moe_dsa", "architectures": ["GlmMoeDsaForCausalLM"], "hidden_size": 6144,
    "num_hidden_layers": 78, "num_attention_heads": 64, "num_key_value_heads": 64, "first_k_dense_replace": 3, "intermediate_size": 12288,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_group": 1, "topk_group": 1,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.5, "q_lora_rank": 2048,
    "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "qk_head_dim": 256, "v_head_dim": 256, "head_dim": 192,
    "rms_norm_eps": 1e-5, "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048, "index_topk_freq": 4, "index_skip_topk_offset": 3,
    "index_topk_pattern": null, "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"}, "max_position_embeddings": 1048576,
    "num_nextn_predict_layers": 1, "vocab_size": 154880, "tie_word_embeddings": false, "eos_token_id": [154820, 154827, 154829]})");
  j["indexer_types"] = Json::array();
  for (int i = 0; i < 78; ++i)
    j["indexer_types"].push_back(std::max(i - 2, 0) % 4 == 0 ? "full" : "shared");
  return j;
}

TEST(Config, ReadsGlm52AndIgnoresItsMisleadingHeadDim) {
  const auto c = parse_config(glm_5_2().dump(), "config.json");
  ASSERT_TRUE(c.has_value()) << c.error().message;
  EXPECT_EQ(c->qk_rope, 64);
  EXPECT_EQ(c->qk_head(), 256);
  EXPECT_EQ(c->kv_row(), 576);
  EXPECT_EQ(c->n_full_indexers(), 21);
  EXPECT_EQ(c->n_mtp_layers, 1);
  EXPECT_EQ(c->rope_theta, 8e6);
  EXPECT_EQ(c->rms_eps, 1e-5f);
  EXPECT_EQ(ModelConfig::kLoraRmsEps, 1e-6f);
}

TEST(Config, AKeyThatIsNearlyAnothersNameIsNamedAndOtherUnknownOnesAreNot) {
  const auto misspelt = [](const std::function<void(Json&)>& change) {
    const auto c = with(change);
    CHECK(c.has_value()) << c.error().message;
    return c->misspelt;
  };
  EXPECT_THAT(misspelt([](Json& j) {
                j.erase("norm_topk_prob");
                j["norm_topk_prb"] = false;
                j["index_topk_feq"] = 4;
              }),
              ElementsAre("index_topk_feq has no effect: is index_topk_freq meant?",
                          "norm_topk_prb has no effect: is norm_topk_prob meant?"));
  EXPECT_THAT(misspelt([](Json& j) {
                j.erase("norm_topk_prob");
                j["normTopkProb"] = false;
                j["index-topk-freq"] = 4;
              }),
              ElementsAre("index-topk-freq has no effect: is index_topk_freq meant?",
                          "normTopkProb has no effect: is norm_topk_prob meant?"));
  EXPECT_THAT(misspelt([](Json& j) {
                j["rope_parameters"] = {{"rope_theta", 1e6}, {"rope_typ", "yarn"}, {"factor", 4}};
              }),
              ElementsAre("rope_parameters.rope_typ has no effect: is rope_type meant?"));
  // As models of the hub have them.
  EXPECT_THAT(misspelt([](Json& j) {
                j["pretraining_tp"] = j["n_group"] = j["n_groups"] = 1;  // another key beside it
                j["layer_types"] = j["auto_map"] = j["sliding_window"] = nullptr;
                j["router_aux_loss_coef"] = j["mlp_bias"] = j["use_qk_norm"] = 0;
                j.erase("eos_token_id");
                j["bos_token_id"] = j["pad_token_id"] = j["sep_token_id"] = 1;
              }),
              IsEmpty());
  EXPECT_THAT(error_of([](Json& j) {
                j.erase("n_shared_experts");
                j["n_share_experts"] = 1;
              }),
              HasSubstr("n_shared_experts is absent, expected an integer. n_share_experts has no "
                        "effect: is n_shared_experts meant?"));
}

// As auto-round's config.json says it of a build.
Json quantised() {
  return {{"quant_method", "auto-round"},
          {"bits", 16},
          {"group_size", 128},
          {"sym", false},
          {"iters", 200},
          {"data_type", "int"}};
}

TEST(Config, AMisspeltKeyOfQuantizationConfigIsNamedOnceForAllModules) {
  const auto misspelt = [](const std::function<void(Json&)>& change) {
    const auto c = with([&](Json& j) {
      j["quantization_config"] = quantised();
      change(j["quantization_config"]);
    });
    CHECK(c.has_value()) << c.error().message;
    return c->misspelt;
  };
  EXPECT_THAT(misspelt([](Json&) {}), IsEmpty());
  EXPECT_THAT(misspelt([](Json& q) {
                q.erase("group_size");
                q["group_sze"] = 64;
                q["descAct"] = true;
              }),
              ElementsAre("quantization_config.descAct has no effect: is desc_act meant?",
                          "quantization_config.group_sze has no effect: is group_size meant?"));
  EXPECT_THAT(misspelt([](Json& q) {
                for (const char* module : {"a", "b", "c"})
                  q["extra_config"][module] = {{"bits", 4}, {"groupsize", 64}, {"sym", true}};
                q["extra_config"]["b"]["fromat"] = "gptq";
              }),
              ElementsAre("quantization_config.extra_config.b.fromat has no effect: is format "
                          "meant?",
                          "quantization_config.extra_config.a.groupsize has no effect: is "
                          "group_size meant? (3 such modules)"));
  EXPECT_THAT(misspelt([](Json& q) {  // of other tools: what nobody reads is not meant
                q["damp"] = 0.1;
                q["seed"] = q["lr"] = q["act"] = 1;
              }),
              IsEmpty());
  EXPECT_THAT(misspelt([](Json& q) {  // as releases have it
                q = {{"quant_method", "fp8"},
                     {"fmt", "e4m3"},
                     {"activation_scheme", "dynamic"},
                     {"weight_block_size", {128, 128}}};
              }),
              IsEmpty());
  EXPECT_THAT(error_of([](Json& j) {
                j["quantization_config"] = quantised();
                j["quantization_config"].erase("bits");
                j["quantization_config"]["bit"] = 4;
              }),
              HasSubstr("bits is absent, expected a number from 0.0625 to 64. "
                        "quantization_config.bit has no effect: is bits meant?"));
  EXPECT_THAT(error_of([](Json& j) {
                j["quantization_config"] = {{"quant_methd", "fp8"}};
              }),
              HasSubstr("is quant_method meant?"));
  EXPECT_THAT(error_of([](Json& j) {
                j["vq"]["modules"]["a"] = {{"d", 2}, {"K", 16}, {"nbits", 4}, {"norm_grup", 64}};
              }),
              HasSubstr("vq.modules.a.norm_grup has no effect: is norm_group meant?"));
}

TEST(Config, NullIsNotCalledAbsent) {
  EXPECT_THAT(error_of([](Json& j) { j["hidden_size"] = nullptr; }),
              HasSubstr("hidden_size is null, expected an integer"));
  EXPECT_THAT(error_of([](Json& j) { j.erase("hidden_size"); }),
              HasSubstr("hidden_size is absent, expected an integer"));
  EXPECT_THAT(error_of([](Json& j) {
                j["quantization_config"] = quantised();
                j["quantization_config"]["bits"] = nullptr;
              }),
              HasSubstr("quantization_config.bits is null"));
}

TEST(Config, AKeyThatStandsThereTwiceIsRefused) {
  std::string text = tiny_config().dump();
  text.insert(1, "\"hidden_size\": 7,");
  const auto c = parse_config(text, "config.json");
  ASSERT_FALSE(c);
  EXPECT_THAT(c.error().message, HasSubstr("config.json: hidden_size stands there twice"));
}

TEST(Config, OfBundledModelsNoKeyIsTakenForASlip) {
  const fs::path source = ASSAY_SOURCE_DIR;
  for (const char* folder :
       {"docs/shapes/glm-5.2", "golden/micro-glm/model", "golden/micro-glm/vq-1.71"}) {
    const auto c = load_config(source / folder);
    ASSERT_TRUE(c.has_value()) << c.error().message;
    EXPECT_THAT(misspelt_in_files(source / folder, *c), IsEmpty()) << folder;
  }
}

// As of GLM-5.2's 1.71-bit release, which names each expert's projections: what takes their square
// takes hours.
TEST(Config, ManyModulesAreReadInTimeProportionalToThem) {
  Json config = glm_5_2();
  Json& modules = config["quantization_config"] = {{"quant_method", "auto-round"},
                                                   {"bits", 16},
                                                   {"group_size", 128},
                                                   {"sym", false},
                                                   {"codebooks_file", "books.safetensors"}};
  for (int l = 3; l < 78; ++l)
    for (int e = 0; e < 256; ++e)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"})
        modules["extra_config"][fmt::format("model.layers.{}.mlp.experts.{}.{}", l, e, part)] = {
            {"bits", 2}, {"format", "vq"}, {"d", 4}};
  const auto begin = std::chrono::steady_clock::now();
  const auto parsed = parse_config(config.dump(), "config.json");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->quantisation.modules().size(), 75u * 256 * 3);
  EXPECT_EQ(parsed->quantisation.codebooks_file(), "books.safetensors");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(Config, TheScheduleGivesTheSameIndexersAsTheList) {
  Json scheduled = glm_5_2();
  scheduled.erase("indexer_types");
  const auto by_schedule = parse_config(scheduled.dump(), "c"),
             by_list = parse_config(glm_5_2().dump(), "c");
  EXPECT_EQ(by_schedule->indexer_full, by_list->indexer_full);
  for (const int full : {0, 1, 2, 6, 10, 74}) EXPECT_TRUE(by_list->indexer_full[full]) << full;
  EXPECT_FALSE(by_list->indexer_full[3]);
}

TEST(Config, WithoutAnOffsetTheScheduleBeginsAsInTransformers) {
  Json json = glm_5_2();
  json.erase("indexer_types");
  json.erase("index_skip_topk_offset");  // 2 there: layers 0, 1, 5, 9, …
  const auto c = parse_config(json.dump(), "config.json");
  ASSERT_TRUE(c.has_value()) << c.error().message;
  for (int l = 0; l < 78; ++l) EXPECT_EQ(c->indexer_full[l], std::max(l - 1, 0) % 4 == 0) << l;
}

TEST(Config, APatternComesBeforeTheFrequencyAndAfterTheList) {
  const auto schedule = [](Json json) {
    const auto c = parse_config(json.dump(), "config.json");
    return c ? c->indexer_full : std::vector<bool>();
  };
  Json json = tiny_config();
  json["index_topk_freq"] = 1;
  json["index_topk_pattern"] = "FSF";
  EXPECT_EQ(schedule(json), (std::vector<bool>{true, true, false})) << "the list";
  json.erase("indexer_types");
  EXPECT_EQ(schedule(json), (std::vector<bool>{true, false, true})) << "the pattern";
  json.erase("index_topk_pattern");
  EXPECT_EQ(schedule(json), (std::vector<bool>{true, true, true})) << "the frequency";
  for (const char* bad : {"FS", "FSX", "FSFF", "SFF", ""}) {
    json["index_topk_pattern"] = bad;
    EXPECT_EQ(schedule(json), std::vector<bool>()) << bad;
  }
}

TEST(Config, Glm5HasNoScheduleAndEveryLayerIsFull) {
  Json glm5 = glm_5_2();
  for (const char* key : {"indexer_types", "index_topk_freq", "index_skip_topk_offset",
                          "index_topk_pattern", "head_dim", "rope_parameters"})
    glm5.erase(key);
  glm5["rope_theta"] = 1e6;
  const auto c = parse_config(glm5.dump(), "c");
  ASSERT_TRUE(c.has_value()) << c.error().message;
  EXPECT_EQ(c->n_full_indexers(), 78);
  EXPECT_EQ(c->rope_theta, 1e6);
}

TEST(Config, WithoutAnIndexerAttentionIsDense) {
  const auto c = with([](Json& j) { j.erase("index_topk"); });
  ASSERT_TRUE(c.has_value()) << c.error().message;
  EXPECT_EQ(c->index_topk, 0);
  EXPECT_EQ(c->n_full_indexers(), 0);
}

TEST(Config, AContradictionNamesTheKeyWhatWasExpectedAndWhatWasFound) {
  EXPECT_THAT(error_of([](Json& j) { j["model_type"] = "deepseek_v3"; }), HasSubstr("deepseek_v3"));
  EXPECT_THAT(error_of([](Json& j) { j.erase("kv_lora_rank"); }),
              HasSubstr("kv_lora_rank is absent"));
  EXPECT_THAT(error_of([](Json& j) { j["hidden_size"] = "16"; }),
              HasSubstr("hidden_size is \"16\""));
  EXPECT_THAT(error_of([](Json& j) { j["hidden_size"] = -1; }), HasSubstr("hidden_size is -1"));
  EXPECT_THAT(error_of([](Json& j) { j["qk_rope_head_dim"] = 3; }), HasSubstr("an even number"));
  EXPECT_THAT(error_of([](Json& j) { j["qk_head_dim"] = 12; }), HasSubstr("expected 10"));
  EXPECT_THAT(error_of([](Json& j) { j["num_experts_per_tok"] = 4; }),
              HasSubstr("n_routed_experts = 3"));
  EXPECT_THAT(error_of([](Json& j) { j["scoring_func"] = "softmax"; }), HasSubstr("\"sigmoid\""));
  EXPECT_THAT(error_of([](Json& j) { j["n_group"] = 8; }), HasSubstr("n_group is 8"));
  EXPECT_THAT(error_of([](Json& j) { j["rope_parameters"]["rope_type"] = "yarn"; }),
              HasSubstr("YaRN"));
  EXPECT_THAT(error_of([](Json& j) {
                j["indexer_types"] = {"full", "full"};
              }),
              HasSubstr("indexer_types"));
  EXPECT_THAT(error_of([](Json& j) {
                j["indexer_types"] = {"shared", "full", "full"};
              }),
              HasSubstr("layer 0"));
  EXPECT_THAT(error_of([](Json& j) {
                j["mlp_layer_types"] = {"dense", "dense", "sparse"};
              }),
              HasSubstr("mlp_layer_types"));
  EXPECT_THAT(error_of([](Json& j) { j["index_head_dim"] = 2; }), HasSubstr("index_head_dim is 2"));
  EXPECT_THAT(error_of([](Json& j) {
                j["quantization_config"] = {{"bits", 2}};
              }),
              HasSubstr("quantization_config.quant_method is absent"));
  EXPECT_THAT(error_of([](Json& j) {
                j.erase("indexer_types");
                j["num_hidden_layers"] = 4096;
                j["n_routed_experts"] = 65536;
              }),
              HasSubstr("in all 4096 layers together"));
  EXPECT_THAT(error_of([](Json& j) { j["eos_token_id"] = 40; }), HasSubstr("vocab_size = 40"));
}

TEST(GenerationConfig, AKeyThatIsNearlyAnothersNameIsNamed) {
  const TinyCheckpoint tiny;
  ModelConfig config = *load_config(tiny.dir);
  tiny.write("generation_config.json",
             R"({"do_sample": true, "temprature": 0.6, "top-k": 40, "top_h": 1, "max_length": 9,
                 "eos_token_id": 3, "pad_token_id": 0, "_from_model_config": true})");
  EXPECT_THAT(load_generation_config(tiny.dir, config)->misspelt,
              ElementsAre("temprature has no effect: is temperature meant?",
                          "top-k has no effect: is top_k meant?"));
  config.misspelt = {"x has no effect: is y meant?"};
  EXPECT_THAT(misspelt_in_files(tiny.dir, config),
              ElementsAre("config.json: x has no effect: is y meant?",
                          "generation_config.json: temprature has no effect: is temperature meant?",
                          "generation_config.json: top-k has no effect: is top_k meant?"));
}

TEST(GenerationConfig, FallsBackToTheConfigsStopIdsAndRefusesNone) {
  const TinyCheckpoint tiny;
  const ModelConfig config = *load_config(tiny.dir);
  EXPECT_EQ(load_generation_config(tiny.dir, config)->eos_ids, (std::vector<int>{1, 2}));
  tiny.write("generation_config.json",
             R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "eos_token_id": 3})");
  const auto g = load_generation_config(tiny.dir, config);
  EXPECT_EQ(g->eos_ids, std::vector<int>{3});
  EXPECT_EQ(g->temperature, 0.6);
  tiny.write("generation_config.json", R"({"temperature": "hot"})");
  EXPECT_THAT(load_generation_config(tiny.dir, config).error().message, HasSubstr("\"hot\""));
  tiny.write("generation_config.json", R"({"eos_token_id": 3, "top_p": 0.9, "top_p": 0.5})");
  EXPECT_THAT(load_generation_config(tiny.dir, config).error().message,
              HasSubstr("generation_config.json: top_p stands there twice"));
  fs::remove(tiny.dir / "generation_config.json");
  ModelConfig none = config;
  none.eos_ids.clear();
  EXPECT_THAT(load_generation_config(tiny.dir, none).error().message, HasSubstr("eos_token_id"));
}

}  // namespace
}  // namespace assay::engine
