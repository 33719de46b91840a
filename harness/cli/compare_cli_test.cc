// assay compare as people run it.
#include <algorithm>
#include <sstream>

#include "base/json.h"
#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"
#include "harness/schema_check.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kVq = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/vq-1.71";

class CompareCli : public Cli {
 protected:
  std::string run(const std::string& name, std::vector<std::string> more = {},
                  const std::string& model = kModel) const {
    std::vector<std::string> arguments = {"run",     "arithmetic", "--arms", "direct",
                                          "--model", model,        "--out",  dir_ / name};
    if (std::find(more.begin(), more.end(), "--limit") == more.end())
      arguments.insert(arguments.end(), {"--limit", "60"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = assay(arguments);
    EXPECT_TRUE(fs::exists(dir_ / name / "run.json")) << o.err;
    return (dir_ / name).string();
  }

  // A copy of a run in which the first `n` correct samples are wrong.
  std::string worse(const std::string& run, const std::string& name, int n) const {
    const fs::path copy = dir_ / name;
    fs::copy(run, copy, fs::copy_options::recursive);
    std::istringstream lines(*read_file(copy / "samples.jsonl"));
    std::string out;
    for (std::string line; std::getline(lines, line);) {
      Json s = Json::parse(line);
      if (s["outcome"]["correctness"] == "correct" && n-- > 0) {
        s["outcome"]["correctness"] = s["outcome"]["class"] = "wrong";
        s["ids"].back() = s["ids"].back().get<int>() - 1;
      }
      out += s.dump() + "\n";
    }
    EXPECT_TRUE(write_file_atomic(copy / "samples.jsonl", out));
    return copy.string();
  }

  Json edited(const std::string& run, const std::function<void(Json&)>& edit) const {
    const fs::path file = fs::path(run) / "run.json";
    Json json = *read_json(file);
    edit(json);
    EXPECT_TRUE(write_file_atomic(file, json.dump()));
    return json;
  }

  // The model with one MLP that says nothing.
  std::string damaged_model() const {
    const fs::path folder = dir_ / "damaged";
    fs::create_directories(folder);
    for (const auto& entry : fs::directory_iterator(kModel))
      if (entry.path().extension() != ".safetensors")
        fs::copy_file(entry.path(), folder / entry.path().filename());
    StoredTensors tensors = read_tensors(fs::path(kModel) / "model.safetensors");
    for (auto& [name, tensor] : tensors)
      if (name.find("layers.2.") != std::string::npos && name.ends_with("o_proj.weight"))
        tensor.bytes.assign(tensor.bytes.size(), '\0');
    write_tensors(folder / "model.safetensors", tensors);
    return folder.string();
  }
};

TEST_F(CompareCli, EqualRunsPassAndSayWhatWouldHaveShown) {
  const std::string a = run("a"), record = dir_ / "compare.json";
  const Outcome o = assay({"compare", a, a, "--out", record});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("0 regressed, 0 fixed"), HasSubstr("60 replies have the same"),
                           HasSubstr("PASS"), HasSubstr("would have been called")));
  const Json json = *read_json(record);
  EXPECT_EQ(json["verdict"]["state"], "pass");
  EXPECT_EQ(assay({"compare", a, a, "--out", record}).code, 0) << "its own kind is made anew";
  const fs::path samples = fs::path(a) / "samples.jsonl", plan = fs::path(a) / "run.json";
  for (const fs::path& other : {samples, plan}) {
    const std::string before = *read_file(other);
    expect_error(assay({"compare", a, a, "--out", other}),
                 AllOf(HasSubstr(other.string()), HasSubstr("nothing is overwritten")));
    EXPECT_EQ(*read_file(other), before);
  }
  EXPECT_EQ(json["comparison"]["n_pairs"], 60);
  EXPECT_EQ(Json::parse(assay({"compare", a, a, "--json"}).out), json);
}

TEST_F(CompareCli, ADropOfGreedyRepliesIsARegressionAtOnce) {
  const std::string a = run("a"), b = worse(a, "b", 30);
  const Outcome o = assay({"compare", a, b, "--flips", "2"});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("30 regressed, 0 fixed"), HasSubstr("correct → wrong"),
                           HasSubstr("28 more: all with"), HasSubstr("part at token"),
                           HasSubstr("REGRESSION"), HasSubstr("arithmetic/direct: accuracy fell")));
  EXPECT_THAT(o.out, Not(HasSubstr("--confirm"))) << "the same bits would come again";
  // Tokens are shown as text, with what was likely there.
  const Json flip = Json::parse(assay({"compare", a, b, "--json"}).out)["comparison"]["flips"][0];
  EXPECT_TRUE(flip["base_token"]["text"].is_string());
  EXPECT_EQ(flip["base_token"]["top"].size(), 4u);
  EXPECT_EQ(assay({"compare", b, a}).code, 0) << "getting better is none";
}

TEST_F(CompareCli, TokensWithoutATokenizerSayWhereItWasLookedFor) {
  make_tiny_model(dir_ / "tiny");
  const std::vector<std::string> few = {"--limit", "4", "--max-tokens", "2"};
  const std::string a = run("a", few, (dir_ / "tiny").string()), b = worse(a, "b", 0);
  // One reply that was right, and is another one now.
  const auto answer = [&](const std::string& folder, const char* correctness, int last) {
    const fs::path file = fs::path(folder) / "samples.jsonl";
    std::istringstream lines(*read_file(file));
    std::string out, line;
    std::getline(lines, line);
    Json s = Json::parse(line);
    s["outcome"]["correctness"] = s["outcome"]["class"] = correctness;
    s["ids"].back() = last;
    out = s.dump() + "\n";
    while (std::getline(lines, line)) out += line + "\n";
    EXPECT_TRUE(write_file_atomic(file, out));
  };
  answer(a, "correct", 18);
  answer(b, "wrong", 19);
  const Outcome there = assay({"compare", a, b});
  EXPECT_THAT(there.out, AllOf(HasSubstr("part at token"), Not(HasSubstr("#19"))));
  EXPECT_THAT(there.err, Not(HasSubstr("tokenizer")));
  edited(b, [](Json& json) { json["options"]["model"] = "models/tiny"; });
  const Outcome elsewhere = assay({"compare", a, b});
  EXPECT_THAT(elsewhere.out, HasSubstr("#19"));
  EXPECT_THAT(elsewhere.err,
              AllOf(HasSubstr("shown by number"), HasSubstr("/models/tiny/tokenizer.json"),
                    HasSubstr("the folder where that run was started")));
  EXPECT_THAT(assay({"compare", a, a}).err, Not(HasSubstr("shown by number")));
}

// Sampled replies: what looks like a regression is decided by fresh draws of both models.
TEST_F(CompareCli, ASuspicionIsConfirmedOrNot) {
  const std::vector<std::string> sampled = {"--temperature", "0.6"};
  const std::string a = run("a", sampled), same = worse(a, "same", 20);
  const Outcome open = assay({"compare", a, same});
  EXPECT_EQ(open.code, 3) << open.out;
  EXPECT_THAT(open.out, AllOf(HasSubstr("suspected"),
                              HasSubstr("assay compare " + a + " " + same + " --confirm")));

  // It is the same model: nothing is seen again.
  const Outcome rejected =
      assay({"compare", a, same, "--confirm", "--confirm-out", dir_ / "draws"});
  EXPECT_EQ(rejected.code, 0) << rejected.out << rejected.err;
  EXPECT_THAT(rejected.out, AllOf(HasSubstr("not confirmed"), HasSubstr("was not seen again")));
  EXPECT_TRUE(fs::exists(dir_ / "draws" / "candidate" / "samples.jsonl"));

  const std::string broken = run("broken", sampled, damaged_model());
  const Outcome confirmed =
      assay({"compare", a, broken, "--confirm", "--confirm-out", dir_ / "more", "--draws", "3"});
  EXPECT_EQ(confirmed.code, 1) << confirmed.out << confirmed.err;
  EXPECT_THAT(confirmed.out, HasSubstr("fell again"));
}

TEST_F(CompareCli, WillNotConfirmWithAnotherModelThanWasRecorded) {
  const std::string a = run("a", {"--temperature", "0.6"}), b = worse(a, "b", 20);
  edited(b, [](Json& json) { json["identity"]["model"] = "0123"; });
  const Outcome other = assay({"compare", a, b, "--confirm", "--confirm-out", dir_ / "draws"});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, AllOf(HasSubstr("cannot confirm"), HasSubstr("recorded with model"),
                               HasSubstr("0123")));
  edited(b, [](Json& json) { json["options"]["model"] = "/nowhere"; });
  expect_error(assay({"compare", a, b, "--confirm", "--confirm-out", dir_ / "other"}),
               AllOf(HasSubstr("the model of " + b), HasSubstr("/nowhere")));
}

TEST_F(CompareCli, ARunBesideItselfIsSaidToShowNothing) {
  const std::string a = run("a"), b = run("b");
  EXPECT_THAT(assay({"compare", a, a + "/."}).err, HasSubstr("both are the run in " + a));
  EXPECT_THAT(assay({"compare", a, b}).err, Not(HasSubstr("both are")));
}

TEST_F(CompareCli, WhatIsNotComparableIsNoVerdict) {
  const std::string a = run("a"), seed = run("seed", {"--seed", "7"});
  const Outcome o = assay({"compare", a, seed});
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.err, AllOf(HasSubstr("not comparable"), HasSubstr("\"seed\"")));
  const std::string unfinished = worse(a, "unfinished", 0);
  edited(unfinished, [](Json& json) { json["status"] = "running"; });
  for (const auto& [base, candidate] : {std::pair{a, unfinished}, {unfinished, a}}) {
    const Outcome half = assay({"compare", base, candidate});
    EXPECT_EQ(half.code, 3);
    EXPECT_THAT(half.err, HasSubstr("assay compare: " + unfinished +
                                    " is not finished: continue it with assay run --resume "));
  }
}

TEST_F(CompareCli, BadInputIsOneClearError) {
  const std::string a = run("a");
  expect_error(assay({"compare"}), HasSubstr("assay compare BASE CANDIDATE"));
  expect_error(assay({"compare", a}), HasSubstr("at least two"));
  expect_error(assay({"compare", a, dir_ / "nowhere"}), HasSubstr("holds no run"));
  const std::string torn = worse(a, "torn", 0);
  const fs::path samples = fs::path(torn) / "samples.jsonl";
  fs::resize_file(samples, fs::file_size(samples) - 20);
  expect_error(assay({"compare", a, torn}),
               AllOf(HasSubstr("counts 60 samples"), HasSubstr("torn")));
  expect_error(assay({"compare", a, a, "--speed", "--repetitions", "3"}), HasSubstr("9"));
  expect_error(assay({"compare", a, a, a, "--confirm"}), HasSubstr("two runs, not 3"));
  expect_error(assay({"compare", a, a, "--out", dir_ / "no" / "where.json"}),
               HasSubstr("where.json"));
  write(dir_ / "x.json", "{}");
  expect_error(assay({"compare", a, dir_ / "x.json"}), HasSubstr("two files of Google Benchmark"));
  expect_error(assay({"compare", dir_ / "x.json", dir_ / "x.json"}), HasSubstr("'benchmarks'"));
}

TEST_F(CompareCli, ManyRunsStandSideBySide) {
  const std::string a = run("release-1"), b = worse(a, "release-2", 5);
  const Outcome o = assay({"compare", a, b, a + "/"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("release-1"), HasSubstr("release-2"),
                           HasSubstr("3 rows of single languages"), HasSubstr("not judged")));
  const Json json = Json::parse(assay({"compare", a, b, a, "--json"}).out);
  EXPECT_EQ(json["releases"]["runs"][1], "release-2");
}

TEST_F(CompareCli, SpeedIsClockedInTurns) {
  make_tiny_model(dir_ / "tiny");
  const std::string a = run("a", {"--limit", "2", "--max-tokens", "2"}, (dir_ / "tiny").string());
  const Outcome o = assay({"compare", a, a, "--speed", "--repetitions", "9", "--json"});
  const Json speed = Json::parse(o.out)["speed"];
  ASSERT_EQ(speed["rows"].size(), 2u) << o.err;
  for (const Json& row : speed["rows"]) {
    EXPECT_EQ(row["n_base"], 9);
    EXPECT_EQ(row["unit"], "tokens/s");
    EXPECT_GT(row["base"].get<double>(), 0);
  }
}

TEST_F(CompareCli, BenchmarkFilesAreJudgedLikeAnything) {
  const auto file = [&](const std::string& name, double ns, int repetitions) {
    Json list = Json::array();
    for (int i = 0; i < repetitions; ++i)
      list.push_back({{"name", "gemv"},
                      {"run_type", "iteration"},
                      {"real_time", ns + 0.1 * i},
                      {"time_unit", "ns"}});
    write(dir_ / name,
          Json({{"context", {{"host_name", name.substr(0, 1)}}}, {"benchmarks", list}}).dump());
    return (dir_ / name).string();
  };
  const std::string base = file("h-base.json", 100, 9), slow = file("h-slow.json", 120, 9);
  const Outcome o = assay({"compare", base, slow});
  EXPECT_EQ(o.code, 1) << o.out << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("gemv"), HasSubstr("slower by"), HasSubstr("REGRESSION")));
  EXPECT_THAT(o.out, AllOf(HasSubstr("speed, from two files"), Not(HasSubstr("in turns"))));
  EXPECT_EQ(assay({"compare", slow, base}).code, 0);
  EXPECT_THAT(assay({"compare", "--help"}).out, HasSubstr("--benchmark_repetitions=9")) << "how";
  EXPECT_EQ(assay({"compare", base, file("h-few.json", 120, 5)}).code, 3) << "too few";
  EXPECT_EQ(assay({"compare", base, file("other.json", 120, 9)}).code, 3) << "another machine";
}

TEST_F(CompareCli, KernelsOfAGpuAreJudgedOnThatGpuAlone) {
  const auto file = [&](const std::string& name, const std::string& gpu, const Json& list) {
    write(dir_ / name,
          Json({{"context", {{"host_name", "h"}, {"gpu", gpu}}}, {"benchmarks", list}}).dump());
    return (dir_ / name).string();
  };
  const auto times = [](const std::string& name, double us) {
    Json list = Json::array();
    for (int i = 0; i < 9; ++i)
      list.push_back({{"name", name},
                      {"run_type", "iteration"},
                      {"real_time", us + 0.01 * i},
                      {"time_unit", "us"},
                      {"of_copy", 0.5}});
    return list;
  };
  Json both = times("rope", 3);
  for (const Json& one : times("embed", 4)) both.push_back(one);
  const std::string base = file("base.json", "H200", both);
  EXPECT_EQ(assay({"compare", base, base}).code, 0);
  const Outcome gone = assay({"compare", base, file("one.json", "H200", times("rope", 3))});
  EXPECT_EQ(gone.code, 0);
  EXPECT_THAT(gone.out, AllOf(HasSubstr("WARN"), HasSubstr("base's file only: embed")));
  const Outcome other = assay({"compare", base, file("h100.json", "H100", both)});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.err, HasSubstr("gpu differs"));
  both.push_back({{"name", "norm"},
                  {"run_type", "iteration"},
                  {"error_occurred", true},
                  {"error_message", "wrong result"},
                  {"real_time", 0}});
  expect_error(assay({"compare", base, file("wrong.json", "H200", both)}),
               HasSubstr("norm (wrong result)"));
}

// What assay run --baseline writes is what assay compare says.
TEST_F(CompareCli, ABaselineIsComparedByTheSameCode) {
  const std::string a = run("a"), b = run("b", {"--baseline", a}, kVq);
  const Json record = *read_json(fs::path(b) / "run.json");
  const Json& recorded = record.at("comparison");
  const Json schema = *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports" / "run.schema.json");
  EXPECT_THAT(harness::SchemaCheck(schema).problems(record), ::testing::IsEmpty());
  EXPECT_GT(recorded["flips"].size(), 0u);
  const Json compared = Json::parse(assay({"compare", a, b, "--json"}).out)["comparison"];
  EXPECT_EQ(recorded["rows"], compared["rows"]);
  EXPECT_EQ(recorded["lengths"], compared["lengths"]);
  EXPECT_EQ(recorded["flips"], compared["flips"]);
}

}  // namespace
}  // namespace assay
