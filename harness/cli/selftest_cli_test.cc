// assay selftest --power as a user calls it, on a few samples: planted faults end as they must, a
// second call goes on, and what cannot be asked is refused.
#include "base/json.h"
#include "harness/cli/cli_testing.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> selftest(const fs::path& out, std::vector<std::string> more) {
  std::vector<std::string> all = {"selftest", "--power", "--limit", "8", "--out", out.string()};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST_F(Cli, SelftestCatchesWreckedModelsAndAccusesNoHealthyOne) {
  const fs::path out = dir_ / "st";
  const auto command = selftest(
      out, {"--faults", "rope-half-split,logit-nan-weights,kv-once,codes-shift", "--nights", "1"});
  const Outcome first = assay(command);
  EXPECT_EQ(first.code, 0) << first.out << first.err;
  EXPECT_THAT(first.out, HasSubstr("3 of 3 strong faults caught, 0 of 1 weak ones"));
  EXPECT_THAT(first.out, HasSubstr("1 nights of a healthy model against itself"));

  const Json json = *read_json(out / "selftest.json");
  EXPECT_EQ(json["status"], "complete");
  EXPECT_EQ(json["passes"], true);
  ASSERT_EQ(json["faults"].size(), 4u);
  EXPECT_EQ(json["faults"][0]["state"], "regression");
  EXPECT_EQ(json["faults"][1]["state"], "refused");
  // A row that is lost once in a reply shows in none of 8, which are too few for a comparison.
  EXPECT_EQ(json["faults"][2]["caught"], false);
  EXPECT_EQ(json["faults"][3]["state"], "regression");
  EXPECT_EQ(json["false_fails"]["n_nights"], 1);
  EXPECT_EQ(json["false_fails"]["n_failed"], 0);
  EXPECT_TRUE(fs::is_empty(out / "models")) << "planted copies are taken away";
  // The healthy engine's identity has no fault in it; that of a planted one does.
  EXPECT_FALSE((*read_json(out / "healthy-bf16/run.json"))["identity"].contains("planted_fault"));
  EXPECT_EQ((*read_json(out / "runs/kv-once/run.json"))["identity"]["planted_fault"],
            "lost_row_once from 512");

  // What is on disk is not run again; another night is.
  auto longer = command;
  longer.back() = "2";
  const Outcome second = assay(longer);
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.err, AllOf(HasSubstr("night 2 of 2"), ::testing::Not(HasSubstr("fault "))));
  const Json again = *read_json(out / "selftest.json");
  EXPECT_EQ(again["faults"], json["faults"]);
  EXPECT_EQ(again["nights"][0], json["nights"][0]);
  EXPECT_NE(again["nights"][1]["n_tokens"], json["nights"][0]["n_tokens"]) << "other draws";

  auto other = command;
  other[3] = "9";
  expect_error(assay(other), HasSubstr("holds a selftest that differs in \"limit\""));
}

TEST_F(Cli, SelftestMissesAreAFailure) {
  // A fault beyond 512 tokens, looked for in 8 short samples.
  const fs::path suites = fs::path(ASSAY_SOURCE_DIR) / "suites";
  fs::create_directories(dir_ / "suites");
  fs::copy(suites / "arithmetic", dir_ / "suites" / "arithmetic", fs::copy_options::recursive);
  const Outcome o = assay(selftest(
      dir_ / "st", {"--faults", "kv-every-step", "--nights", "0", "--suites", dir_ / "suites"}));
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("MISSED"), HasSubstr("0 of 1 strong faults caught")));
}

TEST_F(Cli, AKilledSelftestGoesOnAndEndsAsIfItHadNotBeen) {
  const auto command = [&](const char* folder) {
    return selftest(dir_ / folder, {"--faults", "rope-half-split", "--nights", "2"});
  };
  ASSERT_EQ(assay(command("whole")).code, 0);
  Program killed(command("killed"));
  while (!fs::exists(dir_ / "killed/nights/0001.json")) usleep(2000);
  killed.kill_now();
  EXPECT_EQ(killed.wait().code, -SIGKILL);
  ASSERT_EQ(assay(command("killed")).code, 0);
  const auto told = [&](const char* folder) {  // all but the clock
    Json json = *read_json(dir_ / folder / "selftest.json");
    json.erase("provenance");
    for (Json& night : json["nights"]) night.erase("wall_s");
    for (Json& fault : json["faults"]) {
      fault.erase("minutes");
      fault.erase("minutes_needed");
    }
    return json;
  };
  EXPECT_EQ(told("killed"), told("whole"));
}

TEST_F(Cli, SelftestRefusesWhatItCannotDo) {
  const std::string out = (dir_ / "st").string();
  expect_error(assay({"selftest"}), HasSubstr("what is to be tested? --power"));
  expect_error(assay({"selftest", "--power", "--faults", "kv-onse", "--out", out}),
               HasSubstr("unknown fault 'kv-onse'. Did you mean 'kv-once'?"));
  expect_error(assay({"selftest", "--power", "--faults", "none", "--nights", "0", "--out", out}),
               HasSubstr("leaves nothing to do"));
  expect_error(assay({"selftest", "--power", "--profile", "quik", "--out", out}),
               HasSubstr("Did you mean 'quick'?"));
  expect_error(assay({"selftest", "--power", "--nights", "-1", "--out", out}),
               HasSubstr("expected 0 or more"));
  expect_error(assay({"selftest", "--power", "--model", (dir_ / "none").string(), "--out", out}),
               HasSubstr("none"));
  expect_error(assay({"selftest", "--power", "--faults", "codes-shift", "--nights", "0", "--limit",
                      "8", "--vq", kModel, "--out", out}),
               HasSubstr("codes"));
  write(dir_ / "file", "x");
  expect_error(assay({"selftest", "--power", "--out", (dir_ / "file").string()}),
               HasSubstr("cannot create"));
}

}  // namespace
}  // namespace assay
