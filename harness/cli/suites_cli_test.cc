// Suites as people run them: generated cases, public files, measures, and what is said where
// something is missing.
#include <sstream>

#include "base/json.h"
#include "harness/cli/cli_testing.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class SuitesCli : public Cli {
 protected:
  Outcome run(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"run", "--model", kModel, "--out", dir_ / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return assay(arguments);
  }
  Json record() const { return *read_json(dir_ / "out" / "run.json"); }
  std::vector<Json> samples() const {
    std::vector<Json> out;
    std::istringstream lines(*read_file(dir_ / "out" / "samples.jsonl"));
    for (std::string line; std::getline(lines, line);) out.push_back(Json::parse(line));
    return out;
  }
};

TEST_F(SuitesCli, NeedlesAreBuiltToTheTokenAndResumeToTheSamePrompts) {
  const Outcome o = run({"needle", "--arms", "direct", "--limit", "2"});
  ASSERT_NE(o.code, 2) << o.err;
  EXPECT_THAT(o.out, HasSubstr("% deep"));
  ASSERT_EQ(samples().size(), 2u);
  for (const Json& s : samples()) {
    EXPECT_EQ(s["n_prompt_tokens"], s["recipe"]["n_tokens"]);
    EXPECT_TRUE(s["prompt_ids"].empty()) << "nothing of that size is stored";
    EXPECT_EQ(s["prompt_hash"].get<std::string>().size(), 32u);
  }
  EXPECT_FALSE(record()["needle_grid"].empty());
}

TEST_F(SuitesCli, AShorterContextLeavesNeedlesOutAndIsStillHeldToTheGolden) {
  const Outcome o = run({"facts", "needle", "--profile", "ci", "--languages", "en", "--arms",
                         "direct", "--context", "1024"});
  EXPECT_EQ(o.code, 0) << o.out << o.err;
  EXPECT_THAT(o.err, HasSubstr("longer than the model's 1024 positions"));
  ASSERT_EQ(record()["goldens"].size(), 1u);
  const Json golden = record()["goldens"][0];
  EXPECT_EQ(golden["state"], "pass") << golden["reason"];
  EXPECT_GT(golden["n_replies"], 10);
}

TEST_F(SuitesCli, AHaystackOfOnesOwnMustBeLongEnough) {
  write(dir_ / "short.txt", "One sentence. Another sentence.\n");
  const std::vector<std::string> asked = {"needle", "--arms",      "direct", "--limit",
                                          "2",      "--languages", "en"};
  auto with = [&](const std::string& haystack) {
    std::vector<std::string> all = asked;
    all.insert(all.end(), {"--haystack", haystack});
    return run(all);
  };
  expect_error(with("en:" + (dir_ / "short.txt").string()), HasSubstr("LANGUAGE=FILE"));
  for (const char* file : {"none.txt", "short.txt"}) {  // not there, and too short for a prompt
    const std::string given = "en=" + (dir_ / file).string();
    expect_error(with(given), HasSubstr("--haystack " + given + ": "));
    EXPECT_FALSE(fs::exists(dir_ / "out")) << "nothing was asked";
  }
  expect_error(run({"facts", "--haystack", "en=" + (dir_ / "short.txt").string()}),
               HasSubstr("'needle'"));
}

TEST_F(SuitesCli, AHaystackOfOnesOwnIsWhatTheNeedleLiesIn) {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "On day " + std::to_string(i * 37) +
            (i % 3 == 0 ? " it rained. " : " the ship sailed on") +
            (i % 3 == 1   ? ". "
             : i % 3 == 2 ? " past the green hills, and the crew sang. "
                          : "");
  write(dir_ / "ship.txt", text);
  const Outcome o = run({"needle", "--arms", "direct", "--limit", "2", "--languages", "en",
                         "--haystack", "en=" + (dir_ / "ship.txt").string()});
  EXPECT_NE(o.code, 2) << o.err;
  for (const Json& s : samples()) {
    EXPECT_EQ(s["error"], "");
    EXPECT_EQ(s["n_prompt_tokens"], s["recipe"]["n_tokens"]);
  }
}

TEST_F(SuitesCli, AMeasureAloneEndsInARecordAndNoGate) {
  expect_error(run({"divergence"}), HasSubstr("needs --base"));
  EXPECT_FALSE(fs::exists(dir_ / "out"));
  const Outcome o = run({"throughput"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("tokens/s"), HasSubstr("1 measurement made")));
  EXPECT_EQ(record()["measurements"][0]["state"], "measured");
}

TEST_F(SuitesCli, ABaseThatIsNotThereIsNamedBeforeAnythingIsAsked) {
  expect_error(run({"facts", "divergence", "--base", dir_ / "typo"}),
               AllOf(HasSubstr("--base " + (dir_ / "typo").string()), HasSubstr("captured base")));
  expect_error(run({"facts", "divergence", "--base", dir_}), HasSubstr("no config.json"));
  expect_error(run({"facts", "--base", kModel}), HasSubstr("'divergence'"));
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

TEST_F(SuitesCli, PublicFilesComeFromTheUser) {
  expect_error(run({"mgsm"}), AllOf(HasSubstr("--data"), HasSubstr("url-nlp")));
  for (const char* language : {"ja", "en", "zh"})
    write(dir_ / (std::string("mgsm_") + language + ".tsv"), "What is 2 + 3?\t5\n");
  const Outcome o = run({"mgsm", "--data", dir_, "--arms", "direct", "--max-tokens", "40"});
  EXPECT_EQ(o.code, 0) << o.err << o.out;
  EXPECT_EQ(samples().size(), 3u);
  write(dir_ / "mgsm_zh.tsv", "no tab here\n");
  fs::remove_all(dir_ / "out");
  expect_error(run({"mgsm", "--data", dir_ / "mgsm_en.tsv"}), HasSubstr("a file"));
  expect_error(run({"mgsm", "--data", dir_}), AllOf(HasSubstr("mgsm_zh.tsv:1"), HasSubstr("tab")));
}

TEST_F(SuitesCli, StepsAreKeptWhereTheSuiteAsksForThem) {
  const Outcome o = run({"thinking", "--arms", "greedy", "--limit", "3"});
  ASSERT_NE(o.code, 2) << o.err;
  EXPECT_GT(fs::file_size(dir_ / "out" / "steps.bin"), 100u);
  EXPECT_THAT(o.out, HasSubstr("still at 256"));
}

}  // namespace
}  // namespace assay
