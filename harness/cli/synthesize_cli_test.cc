// assay synthesize and what is said of its folders; assay bench where a GPU computes.
#include "base/json.h"
#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(Cli, SynthesizeMakesAFolderThatIsSaidToBeNoModel) {
  const std::string out = dir_ / "shape";
  const Outcome made = assay({"synthesize", kModel + "/config.json", "--layers", "3", "--out", out,
                              "--threads", "2", "--json"});
  ASSERT_EQ(made.code, 0) << made.err;
  const Json json = Json::parse(made.out);
  EXPECT_EQ(json["n_layers"], 3);
  EXPECT_EQ(json["of_layers"], 7);
  EXPECT_GT(json["n_bytes"].get<double>(), 1e6);

  const Outcome bench = assay(
      {"bench", "--model", out, "--prompt", "8", "--decode", "4", "--repetitions", "1", "--json"});
  ASSERT_EQ(bench.code, 0) << bench.err;
  EXPECT_THAT(bench.err, AllOf(HasSubstr("is not a model"), HasSubstr("first 3 of 7 layers")));
  EXPECT_THAT(Json::parse(bench.out)["engine"]["synthetic"].get<std::string>(),
              HasSubstr("random weights"));
  const Outcome run = assay({"run", "facts", "--model", out, "--limit", "1", "--max-tokens", "4",
                             "--profile", "quick", "--out", dir_ / "run"});
  EXPECT_THAT(run.err, HasSubstr("is not a model"));
  const auto record = read_json(fs::path(dir_) / "run" / "run.json");
  ASSERT_TRUE(record) << run.err;
  EXPECT_THAT((*record)["provenance"]["target"].dump(), HasSubstr("random weights"));
  EXPECT_THAT(assay({"inspect", out}).out, HasSubstr("not a model"));
  EXPECT_THAT(assay({"inspect", kModel}).out, Not(HasSubstr("not a model")));
}

TEST_F(Cli, ASmallFolderHasASizeToo) {
  make_tiny_model(dir_ / "tiny");
  const Outcome made = assay({"synthesize", dir_ / "tiny", "--out", dir_ / "shape"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out, AllOf(HasSubstr(" MB in 2 files, "), Not(HasSubstr("GB"))));
  EXPECT_THAT(made.err, AllOf(HasSubstr("file 1 of 2, "), Not(HasSubstr("GB"))));
}

TEST_F(Cli, SynthesizeSaysThatItClearsWhatAKilledOneLeft) {
  write(dir_ / ".shape.unfinished-4194999-0" / "model-00001-of-00001.safetensors", "half");
  const Outcome made =
      assay({"synthesize", kModel + "/config.json", "--layers", "1", "--out", dir_ / "shape"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.err, HasSubstr(".shape.unfinished-4194999-0 was left half made by a process "
                                  "that is gone, and is deleted"));
  EXPECT_FALSE(fs::exists(dir_ / ".shape.unfinished-4194999-0"));
}

TEST_F(Cli, SynthesizeRefusesInWords) {
  const std::string config = kModel + "/config.json";
  fs::create_directory(fs::path(dir_) / "full");
  ASSERT_TRUE(write_file_atomic(fs::path(dir_) / "full" / "mine", "mine"));
  expect_error(assay({"synthesize", config, "--out", dir_ / "full"}), HasSubstr("there already"));
  EXPECT_EQ(*read_file(fs::path(dir_) / "full" / "mine"), "mine");
  expect_error(assay({"synthesize", config, "--out", dir_ / "o", "--layers", "9"}),
               AllOf(HasSubstr("9 layers"), HasSubstr("1 to 7")));
  expect_error(assay({"synthesize", config, "--out", dir_ / "o", "--layers", "-1"}),
               HasSubstr("--layers"));
  expect_error(assay({"synthesize", config, "--out", dir_ / "o", "--tokenizer", dir_ / "no"}),
               HasSubstr("tokenizer.json"));
  expect_error(assay({"synthesize", config}), HasSubstr("--out"));
  EXPECT_FALSE(fs::exists(fs::path(dir_) / "o"));
}

TEST_F(Cli, AMisspeltKeyOfAConfigIsNamedByWhateverReadsIt) {
  Json config = *read_json(fs::path(kModel) / "config.json");
  config.erase("norm_topk_prob");
  config["norm_topk_prb"] = false;
  write(dir_ / "given" / "config.json", config.dump());
  const std::string out = dir_ / "shape";
  const auto is_named =
      HasSubstr("config.json: norm_topk_prb has no effect: is norm_topk_prob meant?");
  const Outcome made = assay({"synthesize", dir_ / "given" / "config.json", "--layers", "2",
                              "--tokenizer", kModel, "--out", out});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.err, is_named);
  const Outcome inspected = assay({"inspect", out, "--json"});
  EXPECT_THAT(inspected.err, is_named);
  EXPECT_THAT(Json::parse(inspected.out)["misspelt"].dump(), HasSubstr("norm_topk_prb"));
  EXPECT_THAT(assay({"generate", "x", "--model", out, "--max-tokens", "1"}).err, is_named);
  EXPECT_THAT(assay({"inspect", kModel}).err, Not(HasSubstr("no effect")));
}

TEST_F(Cli, AMisspeltKeyStandsInTheRecordAndItsReport) {
  make_tiny_model(dir_ / "tiny");
  const fs::path config = dir_ / "tiny" / "config.json",
                 generation = dir_ / "tiny" / "generation_config.json";
  const auto misspell = [&](const fs::path& file, const char* key, const char* written) {
    Json json = *read_json(file);
    json[written] = json[key];
    json.erase(key);
    write(file, json.dump());
  };
  misspell(config, "norm_topk_prob", "norm_topk_prb");
  misspell(generation, "temperature", "temprature");
  const Outcome run = assay({"run", "arithmetic", "--model", dir_ / "tiny", "--limit", "1",
                             "--max-tokens", "2", "--arms", "direct", "--out", dir_ / "run"});
  const auto record = read_json(dir_ / "run" / "run.json");
  ASSERT_TRUE(record) << run.err;
  const Json expected = {"config.json: norm_topk_prb has no effect: is norm_topk_prob meant?",
                         "generation_config.json: temprature has no effect: is temperature meant?"};
  EXPECT_EQ((*record)["provenance"]["target"]["misspelt"], expected);
  for (const Json& line : expected) {
    EXPECT_THAT(run.err, HasSubstr((dir_ / "tiny").string() + "/" + line.get<std::string>()));
    EXPECT_THAT(*read_file(dir_ / "run" / "report.html"), HasSubstr(line.get<std::string>()));
  }
  const Outcome inspected = assay({"inspect", dir_ / "tiny", "--json"});
  EXPECT_EQ(Json::parse(inspected.out)["misspelt"], expected);
  EXPECT_THAT(inspected.err, HasSubstr("temprature"));
  const Outcome correct = assay({"run", "arithmetic", "--model", kModel, "--limit", "1",
                                 "--max-tokens", "2", "--arms", "direct", "--out", dir_ / "ok"});
  EXPECT_FALSE((*read_json(dir_ / "ok" / "run.json"))["provenance"]["target"].contains("misspelt"))
      << correct.err;
}

TEST_F(Cli, BenchOfNothingAndBeyondTheContextNamesTheFlags) {
  expect_error(assay({"bench", "--model", kModel, "--prompt", "0", "--decode", "0"}),
               HasSubstr("--prompt and --decode are both 0"));
  expect_error(assay({"bench", "--model", kModel, "--context", "10"}),
               AllOf(HasSubstr("--prompt 512"), HasSubstr("10 positions of --context")));
  expect_error(assay({"bench", "--model", kModel, "--context", "99999999"}),
               AllOf(HasSubstr("a context of 99999999 tokens was asked for (--context)"),
                     HasSubstr("the model has 32768 positions")));
}

TEST_F(Cli, BenchClocksATestOnceAndCountsInWords) {
  const Outcome o = assay({"bench", "--model", kModel, "--prompt", "8,8", "--decode", "4",
                           "--depth", "0,16,0", "--repetitions", "1", "-t", "1"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("1 thread, "), HasSubstr("1 repetition\n")));
  EXPECT_THAT(o.out, AllOf(HasSubstr("One repetition, which has no spread"), HasSubstr(" – ")));
  const auto n_rows = [&](const std::string& test) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = o.out.find("\n" + test + " ", at)) != std::string::npos; ++at)
      ++n;
    return n;
  };
  EXPECT_EQ(n_rows("pp8"), 1u);
  EXPECT_EQ(n_rows("tg4"), 2u) << "one of them at depth 16";
  EXPECT_THAT(o.err, AllOf(HasSubstr("--prompt 8 is given twice, and clocked once"),
                           HasSubstr("--depth 0 is given twice, and clocked once")));
}

TEST_F(Cli, BenchOnAGpuIsHeldAgainstTheGpu) {
  const std::string model = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/vq-1.71";
  const Outcome o =
      assay({"bench", "--model", model, "--backend", "cuda", "--threads", "1", "--prompt", "512",
             "--decode", "32", "--depth", "0,2000", "--repetitions", "3", "--json"});
  if (o.err.find("no CUDA device here") != std::string::npos)
    GTEST_SKIP() << o.err << "This test shows nothing here.";
  ASSERT_EQ(o.code, 0) << o.err;
  const Json tests = Json::parse(o.out)["tests"];
  ASSERT_EQ(tests.size(), 3u);
  for (const Json& test : tests) {
    EXPECT_THAT(test["roof"].get<std::string>(), HasSubstr("GPU"));
    EXPECT_FALSE(test.contains("share_of_token_reads")) << "of a host only";
    ASSERT_EQ(test["share_of_roof"].size(), 3u);
    for (const Json& share : test["share_of_roof"]) {
      EXPECT_GT(share.get<double>(), 0);
      EXPECT_LT(share.get<double>(), 1.2) << test["test"] << ": faster than the GPU";
    }
  }
  // Sparse: a key is 4 bytes of each of 160 values in 7 layers, of which 512 are looked at, and an
  // index key 256 bytes in 4; 2001 were read, or one to begin with, and one grew the cache.
  EXPECT_NEAR(tests[1]["token_bytes"]["cache"].get<double>(), 4480 * (3 + 15.5), 1);
  EXPECT_NEAR(tests[2]["token_bytes"]["cache"].get<double>(), 4480 * 512 + 1024 * (2002 + 15.5), 1);
  EXPECT_GT(tests[2]["token_bytes"]["weights"].get<double>(),
            tests[1]["token_bytes"]["weights"].get<double>())
      << "the index's own";
}

TEST_F(Cli, OnAGpuGenerateAndScoreSayHowStepsRan) {
  const Outcome generated =
      assay({"generate", "--model", kModel, "--backend", "cuda", "127 × 8 = ?"});
  if (generated.err.find("no CUDA device here") != std::string::npos)
    GTEST_SKIP() << generated.err << "This test shows nothing here.";
  ASSERT_EQ(generated.code, 0) << generated.err;
  EXPECT_THAT(generated.err, AllOf(HasSubstr("\nsteps: "), HasSubstr(" replayed as graphs"),
                                   HasSubstr("(cuda sm_")));
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"generate"}, {"score", "--positions", "-1"}}) {
    std::vector<std::string> args = verb;
    for (const char* arg : {"--model", kModel.c_str(), "--backend", "cuda", "--json", "127"})
      args.emplace_back(arg);
    const Outcome o = assay(args);
    ASSERT_EQ(o.code, 0) << o.err;
    const Json steps = Json::parse(o.out)["engine_steps"];
    EXPECT_GT(
        steps["replayed"].get<int>() + steps["recorded"].get<int>() + steps["direct"].get<int>(), 0)
        << verb[0];
  }
}

}  // namespace
}  // namespace assay
