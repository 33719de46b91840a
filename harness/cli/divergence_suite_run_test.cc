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
  engine::Engine reload(const char* name, const char* backend) {
    auto engine = engine::Engine::load(folder_.path() / name, {.backend = backend, .n_threads = 1});
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

TEST_F(DivergenceSuiteRun, TheRecordFitsTheSchema) {
  Json schema = *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json");
  const Json all = {{"measurements", schema["properties"]["measurements"]}};
  schema["properties"] = all;
  for (const char* key : {"required", "if"}) schema.erase(key);
  const Measurement measured = {.suite = suite_.head,
                                .reason = "",
                                .result = run({.limit = 1}, {.loaded = &engine_}, engine_)};
  const Json whole = {{"measurements", Json::array({to_json(measured)})}};
  EXPECT_THAT(SchemaCheck(schema).problems(whole), testing::IsEmpty());
}

TEST_F(DivergenceSuiteRun, TheNoiseFloorIsThatOfTheBaseInAnotherArithmetic) {
  const engine::Engine again = reload("model", "reference");
  const Json result =
      run({.n_noise_texts = 1}, {.loaded = &engine_, .loaded_again = &again}, engine_);
  EXPECT_EQ(result["noise_floor"]["between"], Json({"cpu", "reference"}));
  EXPECT_EQ(result["noise_floor"]["n_texts"], 1);
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
