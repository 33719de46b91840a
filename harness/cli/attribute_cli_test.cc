// assay attribute on planted faults: it must name what was damaged, although every tensor of the VQ
// build differs from the base's.
#include <fstream>

#include "engine/plant.h"
#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kVq = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/vq-1.71";

class Attribute : public Cli {
 protected:
  std::string planted(const std::string& model, std::string_view written) {
    const fs::path copy = dir_ / "planted";
    const auto fault = engine::parse_fault(written);
    CHECK(fault.has_value()) << fault.error().message;
    const Result<void> done = engine::plant(model, *fault, copy);
    CHECK(done.has_value()) << done.error().message;
    return copy;
  }
  Json attribute(const std::string& base, const std::string& candidate,
                 std::vector<std::string> more) {
    std::vector<std::string> arguments = {"attribute", base, candidate, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = assay(arguments);
    EXPECT_EQ(o.code, 0) << o.err;
    return Json::parse(o.out);
  }
};

std::vector<std::string> found(const Json& json) { return json["found"]; }

// What the tables show of a model, by its place among the evidence.
Json evidence(const Json& json, std::string_view model) {
  for (const Json& e : json["evidence"])
    if (e["model"] == model) return e;
  return {};
}

TEST_F(Attribute, NamesTheExpertWhoseScalesWereTripled) {
  const std::string candidate = planted(kVq, "expert-scale:experts=3/5,factor=3");
  const Json json =
      attribute(kModel, candidate,
                {"--case", "arithmetic/direct/add-001-ja", "--out", (dir_ / "why.json").string()});
  EXPECT_EQ(json["n_differing"], 345) << "nearly every tensor of a VQ build";
  EXPECT_THAT(found(json), Each(StartsWith("layer 3, experts, expert 5")));
  EXPECT_GT(found(json).size(), 0u);
  EXPECT_EQ(json["is_minimal"], true);
  EXPECT_LT(json["n_tests"], 20);
  EXPECT_EQ(evidence(json, "candidate")["all_right"], false);
  EXPECT_EQ(evidence(json, "candidate with the base's")["all_right"], true);
  EXPECT_EQ(evidence(json, "base with the candidate's")["all_right"], false)
      << "the damage alone breaks the base too";
  const Json& expert = json["levels"][2]["suspects"][0];
  EXPECT_EQ(expert["name"], "layer 3, experts, expert 5");
  EXPECT_GT(expert["recovery"], 0.9);
  EXPECT_EQ(*read_json(dir_ / "why.json"), json);
}

TEST_F(Attribute, NamesAnExpertThatWasSwapped) {
  const std::string candidate = planted(kVq, "expert-swap:experts=4/2+4/9");
  const Json json = attribute(kModel, candidate, {"--case", "arithmetic/direct/mul-003-ja"});
  EXPECT_THAT(found(json), Each(testing::AnyOf(StartsWith("layer 4, experts, expert 2"),
                                               StartsWith("layer 4, experts, expert 9"))));
  EXPECT_GT(found(json).size(), 0u);
  EXPECT_EQ(evidence(json, "candidate with the base's")["all_right"], true);
}

TEST_F(Attribute, NamesTheSharedExpertThatWasDroppedForTwoCasesAtOnce) {
  const std::string candidate = planted(kVq, "shared-drop:layer=2");
  const Json json = attribute(
      kModel, candidate,
      {"--case", "arithmetic/direct/add-001-ja", "--case", "arithmetic/direct/add-001-en"});
  EXPECT_THAT(found(json), Contains("layer 2, shared expert, down_proj"));
  EXPECT_EQ(evidence(json, "candidate with the base's")["answers"].size(), 2u);
}

TEST_F(Attribute, NamesTheSettingThatWasChanged) {
  const std::string candidate = planted(kVq, "rope-half-split");
  const Json json = attribute(kVq, candidate, {"--case", "arithmetic/direct/add-001-ja"});
  EXPECT_THAT(found(json), ElementsAre("config.json"));
}

TEST_F(Attribute, PrintsWhatItFoundAndHowItTried) {
  const std::string candidate = planted(kVq, "shared-drop:layer=2");
  const Outcome o =
      assay({"attribute", kModel, candidate, "--case", "arithmetic/direct/add-001-ja"});
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.out, AllOf(HasSubstr("1 of 345 make it right again"),
                           HasSubstr("layer 2, shared expert, down_proj  ← found"),
                           HasSubstr("expected 2067")));
  EXPECT_THAT(o.err, HasSubstr("by layer: 8 groups"));
}

TEST_F(Attribute, ALimitOfTestsLeavesALargerSetAndSaysSo) {
  const std::string candidate = planted(kVq, "shared-drop:layer=2");
  const Json json =
      attribute(kModel, candidate, {"--case", "arithmetic/direct/add-001-ja", "--max-tests", "2"});
  EXPECT_THAT(found(json), ElementsAre("layer 2"));
  EXPECT_EQ(json["is_minimal"], false);
}

TEST_F(Attribute, SaysWhereThereIsNothingToAttribute) {
  const auto nothing = [](const std::string& base, const std::string& candidate,
                          const std::string& id) {
    const Outcome o = assay({"attribute", base, candidate, "--case", id});
    EXPECT_EQ(o.code, 3) << o.err;
    EXPECT_EQ(o.out, "");
    return o.err;
  };
  const std::string right = "arithmetic/direct/add-001-ja", wrong = "arithmetic/direct/mul-002-ja";
  EXPECT_THAT(nothing(kModel, kVq, right), HasSubstr("the candidate is right as well (correct)"));
  EXPECT_THAT(nothing(kModel, kVq, wrong), HasSubstr("the base itself is not right (wrong)"));
  EXPECT_THAT(nothing(kModel, planted(kVq, "chat-tags:tags=<|user|>+<|assistant|>"), right),
              HasSubstr("tokenizer or chat template differs"));
}

TEST_F(Attribute, BadInputIsNamed) {
  const auto error = [&](const std::vector<std::string>& ids, const std::string& candidate = kVq) {
    std::vector<std::string> arguments = {"attribute", kModel, candidate};
    for (const std::string& id : ids) arguments.insert(arguments.end(), {"--case", id});
    return assay(arguments);
  };
  expect_error(error({"arithmetic/direct/add-01-ja"}),
               HasSubstr("Did you mean 'arithmetic/direct/add-001-ja'?"));
  expect_error(error({"add-001-jq"}), HasSubstr("Did you mean 'add-001-ja'?"));
  expect_error(error({"add-001-ja"}), AllOf(HasSubstr("arithmetic/thinking/add-001-ja"),
                                            HasSubstr("arithmetic/direct/add-001-ja")));
  expect_error(error({"arithmetik/direct/add-001-ja"}), HasSubstr("arithmetic"));
  const std::string key = "arithmetic/direct/add-001-ja";
  expect_error(error({key}, "nowhere"), HasSubstr("nowhere is not a folder"));
  make_tiny_model(dir_ / "tiny");
  expect_error(error({key}, dir_ / "tiny"),
               AllOf(HasSubstr("hidden_size 320"), HasSubstr("has 64")));
  std::ofstream(dir_ / "mine.json") << R"({"mine": 1})";
  expect_error(assay({"attribute", kModel, kVq, "--case", key, "--out", dir_ / "mine.json"}),
               AllOf(HasSubstr("mine.json"), HasSubstr("nothing is overwritten")));
  EXPECT_EQ(*read_file(dir_ / "mine.json"), R"({"mine": 1})");
  expect_error(assay({"attribute", kModel, kVq, "--case", key, "--out", "no/such/folder/x.json"}),
               HasSubstr("no/such/folder"));
}

}  // namespace
}  // namespace assay
