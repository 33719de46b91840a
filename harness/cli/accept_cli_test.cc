// Goldens as people make them and are held to them: assay accept, and the check in assay run.
#include <sstream>

#include "base/json.h"
#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class AcceptCli : public Cli {
 protected:
  AcceptCli() {
    unsetenv("CI");
    make_tiny_model(dir_ / "tiny");
    copy_suite("facts");
    fs::create_directories(dir_ / "golden");
  }

  void copy_suite(const std::string& name) {
    fs::create_directories(dir_ / "suites");
    fs::copy(std::string(ASSAY_SOURCE_DIR) + "/suites/" + name, dir_ / "suites" / name,
             fs::copy_options::recursive);
  }
  // A model of random weights regresses in every gate; that is no matter here.
  Outcome run(const std::string& out, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {
        "run", "facts",    "--suites",      dir_ / "suites", "--model",  dir_ / "tiny",  "--limit",
        "6",   "--golden", dir_ / "golden", "--out",         dir_ / out, "--max-tokens", "12"};
    if (!more.empty()) all.insert(all.end(), more.begin(), more.end());
    return assay(all);
  }
  Outcome accept(std::vector<std::string> more) const {
    more.insert(more.begin(), {"accept", "--golden", dir_ / "golden"});
    return assay(more);
  }
  Json golden_of(const std::string& out) const {
    return read_json(dir_ / out / "run.json")->value("goldens", Json());
  }
  static std::vector<Json> replies_in(const fs::path& golden) {
    std::vector<Json> lines;
    std::istringstream text(*read_text_file(golden / "replies.jsonl.gz"));
    for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  void shorten_replies() {  // as committed data, not as an option
    const fs::path file = dir_ / "suites" / "facts" / "suite.json";
    Json suite = *read_json(file);
    for (Json& arm : suite["arms"]) arm["max_tokens"] = 12, arm.erase("max_thinking_tokens");
    write(file, suite.dump());
  }
  Outcome plain_run(const std::string& out, const std::string& model = "tiny",
                    const char* limit = "6") const {
    return assay({"run", "facts", "--suites", dir_ / "suites", "--model", dir_ / model, "--limit",
                  limit, "--golden", dir_ / "golden", "--out", dir_ / out});
  }
  void damage(const std::string& model) {
    const fs::path file = dir_ / model / "model.safetensors";
    StoredTensors tensors = read_tensors(file);
    std::string& bytes = tensors.at("model.norm.weight").bytes;
    for (std::size_t i = 1; i < bytes.size(); i += 2) bytes[i] = '\x3e';
    write_tensors(file, tensors);
  }
};

TEST_F(AcceptCli, MakesAGoldenThatTheSameModelIsThenHeldTo) {
  shorten_replies();
  plain_run("first");
  EXPECT_EQ(golden_of("first"), Json()) << "there is none yet";
  EXPECT_THAT(read_json(dir_ / "first" / "run.json")->value("golden_note", ""),
              HasSubstr("no golden below"));
  EXPECT_THAT(*read_text_file(dir_ / "first" / "summary.md"), HasSubstr("held to no golden"));
  EXPECT_THAT(*read_text_file(dir_ / "first" / "junit.xml"), HasSubstr("no golden below"));
  expect_error(accept({dir_ / "first"}), AllOf(HasSubstr("no golden"), HasSubstr("--into")));
  const fs::path into = dir_ / "golden" / "tiny" / "runs" / "base";
  const Outcome dry = accept({dir_ / "first", "--into", into, "--dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, AllOf(HasSubstr("6 new"), HasSubstr("noise floor of reference against cpu"),
                             HasSubstr("nothing is written")));
  EXPECT_FALSE(fs::exists(into));
  const Outcome made = accept({dir_ / "first", "--into", into});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(fs::exists(into / "golden.json"));

  const Outcome held = plain_run("second");
  EXPECT_THAT(held.out, HasSubstr("golden base: all 6 replies are computed as before"));
  const Json check = golden_of("second")[0];
  EXPECT_EQ(check["state"], "pass");
  EXPECT_EQ(check["n_same"], 6);

  const Json first = *read_json(into / "golden.json");
  const Outcome again = accept({dir_ / "second"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("0 new, 0 gone, 6 the same"));
  EXPECT_EQ(read_json(into / "golden.json")->at("made"), first.at("made"))
      << "another noise floor of the same replies";
}

TEST_F(AcceptCli, ARunThatAskedLessDoesNotTakeRepliesAway) {
  shorten_replies();
  plain_run("first");
  const fs::path into = dir_ / "golden" / "tiny" / "runs" / "base";
  ASSERT_EQ(accept({dir_ / "first", "--into", into}).code, 0);
  plain_run("less", "tiny", "2");
  const std::string before = *read_text_file(into / "golden.json");
  expect_error(accept({dir_ / "less"}),
               AllOf(HasSubstr("4 of the golden's 6 replies"), HasSubstr("--drop")));
  EXPECT_EQ(*read_text_file(into / "golden.json"), before);
  const Outcome dry = accept({dir_ / "less", "--dry-run"});
  expect_error(dry, HasSubstr("it would be refused: 4 of the golden's 6 replies"));
  EXPECT_THAT(dry.out, AllOf(HasSubstr("4 gone"), Not(HasSubstr("is dropped"))));
  EXPECT_THAT(accept({dir_ / "less", "--dry-run", "--drop"}).out, Not(HasSubstr("refused")));
  EXPECT_EQ(accept({dir_ / "less", "--drop"}).code, 0);
  EXPECT_EQ(read_json(into / "golden.json")->at("n_replies"), 2);
}

TEST_F(AcceptCli, ABuildThatComputesOtherwiseIsARegressionAndOfAnotherSuiteNotComparable) {
  shorten_replies();
  plain_run("first");
  const fs::path into = dir_ / "golden" / "tiny" / "runs" / "base";
  ASSERT_EQ(accept({dir_ / "first", "--into", into}).code, 0);
  // What a broken build of assay does to the same fingerprint: the golden's figures are moved
  // instead, which is the same distance.
  const fs::path file = into / "replies.jsonl.gz";
  std::string text = *read_text_file(file);
  Json line = Json::parse(text.substr(0, text.find('\n')));
  line["logprobs"][3] = line["logprobs"][3].get<int>() - 1000;  // 0.01 nats
  write(file, line.dump() + text.substr(text.find('\n')));
  const Outcome diverged = plain_run("second");
  EXPECT_EQ(diverged.code, 1) << diverged.out;
  EXPECT_THAT(diverged.out, AllOf(HasSubstr("1 of 6 replies of the golden base"),
                                  HasSubstr(line["key"].get<std::string>()), HasSubstr("token 3")));

  const fs::path suite = dir_ / "suites" / "facts" / "suite.json";
  Json json = *read_json(suite);
  json["version"] = json["version"].get<int>() + 1;
  write(suite, json.dump());
  plain_run("third");
  EXPECT_EQ(golden_of("third")[0]["state"], "not_comparable");
  EXPECT_THAT(golden_of("third")[0]["reason"].get<std::string>(), HasSubstr("of suite facts"));
  EXPECT_THAT(accept({dir_ / "second"}).err, HasSubstr("is not what the run asked"));
}

TEST_F(AcceptCli, OneCaseIsAcceptedAlone) {
  shorten_replies();
  plain_run("first");
  const fs::path into = dir_ / "golden" / "tiny" / "runs" / "base";
  ASSERT_EQ(accept({dir_ / "first", "--into", into}).code, 0);
  const std::vector<Json> before = replies_in(into);
  std::vector<Json> lines = before;
  std::string changed;
  for (Json& line : lines) {
    line["ids"][0] = 100;
    changed += line.dump() + "\n";
  }
  write(into / "replies.jsonl.gz", changed);
  const std::string key = lines[2]["key"];
  const std::string id = key.substr(key.rfind('/') + 1);
  expect_error(accept({dir_ / "first", "--case", id + "x"}),
               AllOf(HasSubstr("no reply"), HasSubstr(id)));
  const Outcome o = accept({dir_ / "first", "--case", key});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("1 reply changed"), HasSubstr("at token 0"), HasSubstr(key)));
  lines[2] = before[2];
  EXPECT_EQ(replies_in(into), lines) << "the others stay as they were";
  const Json made = (*read_json(into / "golden.json"))["made"];
  EXPECT_EQ(made["amended"][0]["cases"], Json::array({key})) << "where the new reply comes from";
}

TEST_F(AcceptCli, RefusesInContinuousIntegrationWithAChangedSuiteAndWithAnothersSampler) {
  run("short");
  expect_error(accept({dir_ / "short", "--into", dir_ / "g"}),
               AllOf(HasSubstr("--max-tokens 12"), HasSubstr("own samplers")));
  shorten_replies();
  plain_run("first");
  setenv("CI", "true", 1);
  expect_error(accept({dir_ / "first", "--into", dir_ / "g"}), HasSubstr("(CI is set)"));
  unsetenv("CI");
  // A suite in a repository, with a change that is not committed.
  const std::string git = "git -C " + (dir_ / "suites").string() + " ";
  ASSERT_EQ(std::system((git + "init -q && " + git + "add -A && " + git +
                         "-c user.name=a -c user.email=a@b commit -q -m suites")
                            .c_str()),
            0);
  EXPECT_EQ(accept({dir_ / "first", "--into", dir_ / "g", "--dry-run"}).code, 0);
  write(dir_ / "suites" / "facts" / "NOTES.md", "more\n");
  expect_error(accept({dir_ / "first", "--into", dir_ / "g"}),
               AllOf(HasSubstr("not committed"), HasSubstr("NOTES.md")));
  // What git cannot say is no leave.
  fs::remove(dir_ / "suites" / "facts" / "NOTES.md");
  const std::string path = getenv("PATH");
  setenv("PATH", (dir_ / "nowhere").c_str(), 1);
  const Outcome no_git = accept({dir_ / "first", "--into", dir_ / "g"});
  setenv("PATH", path.c_str(), 1);
  expect_error(no_git, HasSubstr("whether the suite is committed cannot be told"));
  EXPECT_FALSE(fs::exists(dir_ / "g"));
}

// Nothing can be concluded from such a run: exit code 3 (README), of assay compare too.
TEST_F(AcceptCli, AnUnfinishedOrInvalidRunIsNoEvidenceWhateverItsGoldens) {
  shorten_replies();
  plain_run("first");
  const auto expect_no_evidence = [&](const char* message) {
    const Outcome o = accept({dir_ / "first", "--into", dir_ / "g"});
    EXPECT_EQ(o.code, 3) << o.out << o.err;
    EXPECT_THAT(o.err, HasSubstr(message));
    EXPECT_FALSE(fs::exists(dir_ / "g"));
  };
  Json json = *read_json(dir_ / "first" / "run.json");
  json["goldens"] = Json::array();
  json["verdict"]["state"] = "invalid";
  json["verdict"]["problems"] = {"not comparable with the golden g: other",
                                 "2 samples are missing"};
  write(dir_ / "first" / "run.json", json.dump());
  expect_no_evidence("2 samples are missing");
  Json silent = json;
  silent["verdict"]["problems"] = Json::array();
  write(dir_ / "first" / "run.json", silent.dump());
  expect_no_evidence("is not valid");
  silent["status"] = "running";
  write(dir_ / "first" / "run.json", silent.dump());
  expect_no_evidence("is not finished: continue it with assay run --resume ");
  EXPECT_EQ(assay({"compare", dir_ / "first", dir_ / "first"}).code, 3);
  json["verdict"]["problems"].erase(1);
  write(dir_ / "first" / "run.json", json.dump());
  EXPECT_EQ(accept({dir_ / "first", "--into", dir_ / "g"}).code, 0);
}

// A golden that is named must hold; one that is not there is no pass.
TEST_F(AcceptCli, ANamedGoldenOfAnotherModelIsNotComparable) {
  const auto run_with = [&](const std::string& golden) {
    return assay({"run", "arithmetic", "--limit", "3", "--model", kModel, "--golden", golden,
                  "--out", dir_ / "named"});
  };
  expect_error(run_with(dir_ / "nowhere"), HasSubstr("expected a folder of goldens"));
  EXPECT_FALSE(fs::exists(dir_ / "named")) << "before anything was asked";
  const Outcome other = run_with(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/runs/vq-1.71");
  EXPECT_EQ(other.code, 3) << other.out;
  EXPECT_THAT(other.out, HasSubstr("not comparable with the golden"));
}

TEST_F(AcceptCli, AModelThatChangedSinceTheRunIsNoticed) {
  shorten_replies();
  plain_run("first");
  damage("tiny");
  expect_error(accept({dir_ / "first", "--into", dir_ / "g"}),
               AllOf(HasSubstr("no longer what the run asked"), HasSubstr("model")));
}

TEST_F(AcceptCli, AFolderWithoutARunAndAnUnfinishedOneAreNamed) {
  expect_error(accept({dir_ / "nothing"}), HasSubstr("holds no run"));
  shorten_replies();
  plain_run("first");
  Json json = *read_json(dir_ / "first" / "run.json");
  json["status"] = "running";
  write(dir_ / "first" / "run.json", json.dump());
  const Outcome o = accept({dir_ / "first"});
  EXPECT_EQ(o.code, 3) << "as of assay compare: it proves nothing yet";
  EXPECT_THAT(o.err, AllOf(HasSubstr("is not finished"), HasSubstr("--resume")));
}

}  // namespace
}  // namespace assay
