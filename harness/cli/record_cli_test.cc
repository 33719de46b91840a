// Every kind of record that `assay run` leaves fits reports/run.schema.json, and the files for
// machines beside it can be read.
#include "base/json.h"
#include "harness/cli/cli_testing.h"
#include "harness/cli/tiny_model.h"
#include "harness/schema_check.h"
#include "harness/xml_check.h"

namespace assay {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class RecordCli : public Cli {
 protected:
  RecordCli() { make_tiny_model(dir_ / "model"); }

  Outcome run(const std::string& out, std::vector<std::string> more,
              const std::string& model = "") const {
    std::vector<std::string> arguments = {
        "run",   "--model",  model.empty() ? (dir_ / "model").string() : model,
        "--out", dir_ / out, "--max-tokens",
        "24"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return assay(arguments);
  }

  Json record(const std::string& out) const { return *read_json(dir_ / out / "run.json"); }

  // The complete record of a run, checked.
  Json checked(const std::string& out, const Outcome& outcome) const {
    Json run = record(out);
    EXPECT_THAT(harness::SchemaCheck(schema_).problems(run), IsEmpty());
    EXPECT_EQ(run["status"], "complete");
    EXPECT_EQ(run["verdict"]["exit_code"], outcome.code) << outcome.err;
    const harness::XmlNode junit = harness::XmlReader::read(*read_file(dir_ / out / "junit.xml"));
    EXPECT_EQ(junit.attributes.at("failures") + junit.attributes.at("errors") == "00",
              outcome.code == 0)
        << "red exactly if the run is";
    EXPECT_THAT(*read_file(dir_ / out / "summary.md"), StartsWith("## "));
    return run;
  }

  Json schema_ = *read_json(fs::path(ASSAY_SOURCE_DIR) / "reports/run.schema.json");
};

TEST_F(RecordCli, APlainRunAndOneAgainstABaseline) {
  const std::vector<std::string> few = {"arithmetic", "--limit", "12"};
  const Json plain = checked("base", run("base", few));
  EXPECT_EQ(plain["verdict"]["state"], "regression") << "random weights fail every gate";
  EXPECT_FALSE(plain.contains("comparison"));
  std::vector<std::string> again = few;
  again.insert(again.end(), {"--baseline", dir_ / "base"});
  EXPECT_TRUE(checked("again", run("again", again)).contains("comparison"));
}

TEST_F(RecordCli, MeasurementsAndWhatIsLeftOut) {
  const Json run =
      checked("all", this->run("all", {"all", "--limit", "4", "--base", dir_ / "model"}));
  EXPECT_EQ(run["measurements"].size(), 2u);
  for (const Json& m : run["measurements"]) EXPECT_EQ(m["state"], "measured") << m["suite"];
  EXPECT_FALSE(run["skipped"].empty());
  const Json again =
      checked("again", this->run("again", {"all", "--limit", "4", "--base", dir_ / "model",
                                           "--baseline", dir_ / "all"}));
  const Json& all = again["comparison"]["fidelity"]["rows"][0];
  EXPECT_EQ(all["ratio"]["estimate"], 1);
  EXPECT_EQ(all["verdict"], "pass");
  EXPECT_THAT(*read_file(dir_ / "again" / "junit.xml"), HasSubstr("KLD to the base all"));
}

// The quickstart's recipe.
TEST_F(RecordCli, ABaselineThatIsTheBaseItself) {
  checked("base", this->run("base", {"all", "--limit", "4"}));
  const Json run = checked("now", this->run("now", {"all", "--limit", "4", "--base", dir_ / "model",
                                                    "--baseline", dir_ / "base"}));
  const Json& fidelity = run["comparison"]["fidelity"];
  EXPECT_THAT(fidelity["reason"].get<std::string>(), HasSubstr("the baseline is the base itself"));
  EXPECT_EQ(fidelity["rows"][0]["base"]["value"], 0);
  EXPECT_FALSE(fidelity["rows"][0]["candidate"].is_null());
}

TEST_F(RecordCli, Needles) {
  const Json run = checked(
      "needles", this->run("needles", {"needle", "--arms", "direct", "--limit", "2"}, kModel));
  EXPECT_FALSE(run["needle_grid"].empty());
}

// A suite whose own text is too short to hide a needle in: its samples cannot be asked.
TEST_F(RecordCli, AnInvalidRun) {
  const fs::path suite = dir_ / "suites" / "needle";
  fs::create_directories(suite.parent_path());
  fs::copy(std::string(ASSAY_SOURCE_DIR) + "/suites/needle", suite, fs::copy_options::recursive);
  Json json = *read_json(suite / "suite.json");
  json["generator"]["texts"]["en"] = "short.txt";
  write(suite / "suite.json", json.dump());
  write(suite / "short.txt", "One sentence. Another sentence.\n");
  const Json run = checked("bad", this->run("bad",
                                            {"needle", "--suites", dir_ / "suites", "--arms",
                                             "direct", "--limit", "2", "--languages", "en"},
                                            kModel));
  EXPECT_EQ(run["verdict"]["state"], "invalid");
}

TEST_F(RecordCli, AnInterruptedRunAndWhatItBecomes) {
  Program cut({"run", "arithmetic", "--model", dir_ / "model", "--out", dir_ / "cut", "--threads",
               "1", "--profile", "full"});
  for (int i = 0; i < 5000; ++i) {
    std::error_code ignored;
    const fs::path samples = dir_ / "cut" / "samples.jsonl";
    if (fs::exists(samples, ignored) && fs::file_size(samples, ignored) > 0) break;
    usleep(2000);
  }
  cut.interrupt();
  const Outcome outcome = cut.wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  const Json run = record("cut");
  EXPECT_EQ(run["status"], "running");
  EXPECT_THAT(harness::SchemaCheck(schema_).problems(run), IsEmpty());
  EXPECT_FALSE(fs::exists(dir_ / "cut" / "junit.xml"));
}

TEST_F(RecordCli, AResumedRunNamesWhoContinuedIt) {
  const Outcome first = run("run", {"arithmetic", "--limit", "12"});
  fs::resize_file(dir_ / "run" / "samples.jsonl", 100);  // as if it had been killed
  Json running = record("run");
  for (const char* key : {"verdict", "metrics", "samples", "timings"}) running.erase(key);
  running["status"] = "running";
  write(dir_ / "run" / "run.json", running.dump());
  const Outcome second = assay({"run", "--resume", dir_ / "run"});
  EXPECT_EQ(second.code, first.code) << second.err;
  EXPECT_EQ(checked("run", second)["provenance"]["resumed"].size(), 1u);
}

}  // namespace
}  // namespace assay
