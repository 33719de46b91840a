#include "harness/divergence_suite_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/cli/tiny_model.h"
#include "harness/divergence_result.h"
#include "harness/divergence_table.h"
#include "harness/schema_check.h"
#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class DivergenceSuiteRun : public testing::Test {
 protected:
  DivergenceSuiteRun() : engine_(load("model", 5)) {
    std::ofstream(folder_.path() / "suite.json") << R"({"format": 1, "name": "far", "version": 1,
      "title": "Far", "measure": "divergence", "texts": "texts.jsonl", "profiles": {"full": {}}})";
    std::ofstream(folder_.path() / "texts.jsonl")
        << R"({"id":"tea","lang":"en","messages":[{"role":"user","content":"Tea?"}],"reply":"It is warm.</think>Warm."}
{"id":"sum","lang":"ja","messages":[{"role":"user","content":"127×8は？"}],"reply":"127×8=1016。</think>1016です。"}
{"id":"box","lang":"zh","text":"箱子里有783个饼干。"}
)";
    auto suite = load_divergence_suite(folder_.path());
    CHECK(suite.has_value());
    suite_ = *std::move(suite);
  }

  engine::Engine load(const char* name, unsigned seed) {
    make_tiny_model(folder_.path() / name, 3072, seed);
    return reload(name, "cpu");
  }
  engine::Engine reload(const char* name, const char* backend, engine::PlantedFault fault = {}) {
    auto engine = engine::Engine::load(
        folder_.path() / name, {.backend = backend, .n_threads = 1, .planted_fault = fault});
    CHECK(engine.has_value());
    return *std::move(engine);
  }

  Json run(const DivergenceSettings& settings, const DivergenceAgainst& against,
           const engine::Engine& candidate) {
    const auto result = run_divergence(suite_, settings, against, candidate, 1);
    CHECK(result.has_value());
    return **result;
  }

  TemporaryFolder folder_;
  engine::Engine engine_;
  DivergenceSuite suite_;
};

TEST_F(DivergenceSuiteRun, AModelDoesNotDivergeFromItself) {
  const Json result = run({}, {.loaded = &engine_}, engine_);
  const Json& all = result["groups"][0];
  EXPECT_EQ(all["n_texts"], 3);
  EXPECT_EQ(all["kld"]["max"]["value"], 0.0);
  EXPECT_EQ(all["top1_agreement"]["value"], 1.0);
  EXPECT_TRUE(result["noise_floor"].is_null()) << "not measured, so not 0";
  EXPECT_THAT(render_divergence(result, false),
              AllOf(HasSubstr("KL(base ‖ candidate)"), HasSubstr("100.00 ±"), HasSubstr("thinking"),
                    HasSubstr("furthest apart")));
}

TEST_F(DivergenceSuiteRun, AFigureHasNoMoreDigitsThanSaySomething) {
  Json result = run({.limit = 1}, {.loaded = &engine_}, engine_);
  Json& perplexity = result["groups"][0]["perplexity"];
  perplexity["ratio"] = {{"value", 30105.55547}, {"error", 12034.5}};
  perplexity["candidate"]["value"] = 94021.12345;
  EXPECT_THAT(render_divergence(result, false),
              AllOf(HasSubstr("30105.6 ± 12034"), HasSubstr("→ 94021.1\n")));
}

TEST_F(DivergenceSuiteRun, TheRecordFitsTheSchema) {
  Json schema = *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json");
  const Json all = {{"measurements", schema["properties"]["measurements"]}};
  schema["properties"] = all;
  for (const char* key : {"required", "if"}) schema.erase(key);
  const Measurement measured = {.suite = suite_.head,
                                .reason = "",
                                .result = run({.limit = 1}, {.loaded = &engine_}, engine_)};
  Json whole = {{"measurements", Json::array({to_json(measured)})}};
  EXPECT_THAT(SchemaCheck(schema).problems(whole), testing::IsEmpty());
  const engine::Engine differs =
      reload("model", "cpu", {.kind = engine::PlantedFault::Kind::kLostRowEveryStep, .from = 1});
  whole["measurements"][0]["result"] = run({.n_noise_texts = 1}, {.loaded = &engine_}, differs);
  EXPECT_THAT(SchemaCheck(schema).problems(whole), testing::IsEmpty());
}

TEST_F(DivergenceSuiteRun, TheNoiseFloorIsThatOfTheBaseInAnotherArithmetic) {
  const engine::Engine again = reload("model", "reference");
  const Json result =
      run({.n_noise_texts = 1}, {.loaded = &engine_, .loaded_again = &again}, engine_);
  EXPECT_EQ(result["noise_floor"]["between"], Json({"cpu", "reference"}));
  EXPECT_EQ(result["noise_floor"]["n_texts"], 1);
}

TEST_F(DivergenceSuiteRun, WhereDecodeAndPrefillHaveTheSameBitsItSaysSoAndMeasuresNothing) {
  const Json result = run({.n_noise_texts = 2}, {.loaded = &engine_}, engine_);
  EXPECT_EQ(result["decode_against_prefill"], (Json{{"same_bits", true}, {"figures", nullptr}}));
  EXPECT_THAT(render_divergence(result, false),
              HasSubstr("decode against prefill: the same bits on this backend"));
}

TEST_F(DivergenceSuiteRun, WhatCpuPromisesOfDecodeAndPrefillIsMeasuredToo) {
  auto texts = tokenize_texts(suite_.lines, engine_);
  ASSERT_TRUE(texts) << texts.error().message;
  for (const int chunk : {1, 5, 512}) {
    auto loaded =
        engine::Engine::load(folder_.path() / "model", {.n_threads = 1, .prefill_chunk = chunk});
    ASSERT_TRUE(loaded) << loaded.error().message;
    const auto same = diverge_decode(*loaded, *texts, 1, {});
    const auto whole = diverge_texts(engine_, engine_, *texts, 1, {});
    ASSERT_TRUE(same && whole);
    ASSERT_EQ(same->size(), whole->size()) << "every token of the replies";
    for (std::size_t i = 0; i < same->size(); ++i) {
      EXPECT_EQ((*same)[i].d.kld, 0.0) << chunk << " " << i;
      EXPECT_EQ((*same)[i].d.nll_candidate, (*whole)[i].d.nll_base) << chunk << " " << i;
    }
  }
}

// A fault of the cache stands in for a kernel whose chunks and single rows differ: each step
// overwrites a row of the one before, so that how many steps there are counts.
TEST_F(DivergenceSuiteRun, WhereDecodeAndPrefillDifferItIsMeasuredAsANoiseFloor) {
  using Kind = engine::PlantedFault::Kind;
  const engine::Engine differs =
      reload("model", "cpu", {.kind = Kind::kLostRowEveryStep, .from = 1});
  EXPECT_FALSE(differs.info().prefill_equals_decode);
  const Json result = run({.n_noise_texts = 2}, {.loaded = &engine_}, differs);
  const Json& decode = result["decode_against_prefill"];
  EXPECT_EQ(decode["same_bits"], false);
  EXPECT_EQ(decode["figures"]["n_texts"], 2);
  EXPECT_GT(decode["figures"]["kld"]["mean"]["value"], 0.0);
  EXPECT_EQ(decode["figures"]["groups"][0]["kld"], decode["figures"]["kld"]);
  EXPECT_THAT(render_divergence(result, false),
              HasSubstr("decode against prefill of the candidate (2 texts): KLD mean"));
  const Json none = run({.n_noise_texts = 0}, {.loaded = &engine_}, differs);
  EXPECT_TRUE(none["decode_against_prefill"]["figures"].is_null());
  EXPECT_THAT(render_divergence(none, false), HasSubstr("not the same bits with this kernel"));
}

TEST_F(DivergenceSuiteRun, ATextThatCachesCannotHoldTwiceIsNamedBeforeAnyIsRead) {
  const DivergenceBase::Text texts[] = {
      {.id = "small", .lang = "en", .ids = std::vector<int>(256), .positions = {}},
      {.id = "large", .lang = "en", .ids = std::vector<int>(257), .positions = {}}};
  EXPECT_TRUE(check_room_for_two(texts, {.n_tokens = 1024, .n_free = 1024, .grain = 256}));
  EXPECT_TRUE(check_room_for_two({texts, 1}, {.n_tokens = 512, .n_free = 512, .grain = 256}));
  EXPECT_TRUE(check_room_for_two(texts, {})) << "a host's";
  const auto refused = check_room_for_two(texts, {.n_tokens = 768, .n_free = 768, .grain = 256});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("text large"), HasSubstr("257 tokens twice"),
                                             HasSubstr("room for 768"), HasSubstr("--threads")));
}

TEST_F(DivergenceSuiteRun, ACapturedBaseServesEveryProfileOfItsTexts) {
  const engine::Engine other = load("other", 6);
  auto captured = new_base(suite_.lines, engine_);
  ASSERT_TRUE(captured) << captured.error().message;
  ASSERT_TRUE(capture(engine_, captured->texts, 1, {}));
  const Json whole = run({.limit = 2}, {.loaded = &engine_}, other);
  const Json from_file = run({.limit = 2}, {.captured = &*captured}, other);
  EXPECT_EQ(from_file["groups"][0]["n_texts"], 2);
  EXPECT_EQ(from_file["groups"][0]["n_positions"], whole["groups"][0]["n_positions"]);
  EXPECT_LE(from_file["groups"][0]["kld"]["mean"]["value"],
            whole["groups"][0]["kld"]["mean"]["value"]);
  EXPECT_FALSE(from_file["groups"][0]["kld_mean_at_most"].is_null());
}

TEST_F(DivergenceSuiteRun, ABaseCapturedFromOtherTextsIsRefused) {
  auto captured = new_base(suite_.lines, engine_);
  ASSERT_TRUE(captured) << captured.error().message;
  ASSERT_TRUE(capture(engine_, captured->texts, 1, {}));
  const auto error = [&] {
    const auto result = run_divergence(suite_, {}, {.captured = &*captured}, engine_, 1);
    return result ? "no error" : result.error().message;
  };
  captured->texts[1].ids.back() ^= 1;
  EXPECT_THAT(error(), AllOf(HasSubstr("'sum'"), HasSubstr("--save-base")));
  captured->texts.erase(captured->texts.begin());
  EXPECT_THAT(error(), AllOf(HasSubstr("'tea'"), HasSubstr("has 2 texts")));
  captured->model["tokenizer"] = "another";
  EXPECT_THAT(error(), HasSubstr("tokenizer"));
}

TEST_F(DivergenceSuiteRun, StopsBetweenTextsAndThenKeepsNothing) {
  std::stop_source source;
  int n = 0;
  const auto result = run_divergence(
      suite_, {}, {.loaded = &engine_}, engine_, 1,
      [&](int n_done, int) {
        n = n_done;
        source.request_stop();
      },
      source.get_token());
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_FALSE(*result);
  EXPECT_EQ(n, 1);
}

}  // namespace
}  // namespace assay::harness
