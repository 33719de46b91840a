#include "harness/cli/run_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <set>
#include <thread>

#include "harness/cli/command_line.h"
#include "harness/cli/own_output.h"
#include "harness/cli/progress.h"
#include "harness/cli/verb.h"
#include "harness/test_support.h"

namespace assay::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

Json given_by(std::vector<std::string> arguments) {
  CLI::App app;
  RunFlags flags;
  flags.add_to(app);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes a vector
  app.parse(arguments);
  return flags.given();
}

TEST(OwnOutput, RunsOfTheSameSecondHaveFoldersOfTheirOwn) {
  const harness::TemporaryFolder dir;
  const fs::path wanted = dir.path() / "out" / "facts-20261130-120000";
  std::vector<fs::path> made(8);
  {
    std::vector<std::jthread> runs;
    for (fs::path& folder : made)
      runs.emplace_back([&] { folder = make_own_folder(wanted).value_or(fs::path()); });
  }
  EXPECT_EQ(std::set<fs::path>(made.begin(), made.end()).size(), made.size());
  for (const fs::path& folder : made) EXPECT_TRUE(fs::is_directory(folder)) << folder;
  EXPECT_THAT(made, testing::Contains(wanted));
  EXPECT_THAT(made, testing::Contains(fs::path(wanted.string() + "-8")));
  std::ofstream(dir.path() / "file") << "mine";
  EXPECT_THAT(make_own_folder(dir.path() / "file" / "facts").error().message,
              HasSubstr("Choose another with --out"));
}

TEST(RunOptions, OnlyWhatWasTypedIsGiven) {
  EXPECT_EQ(given_by({}), Json::object());
  const Json given = given_by({"arithmetic", "--languages", "ja,en", "--temperature", "0"});
  EXPECT_EQ(given,
            Json({{"suites", {"arithmetic"}}, {"languages", {"ja", "en"}}, {"temperature", 0.0}}));
}

TEST(RunOptions, ResumeTakesTheRecordAndWhatIsTypedWins) {
  auto first =
      merge_options(Json::object(), given_by({"arithmetic", "--seed", "7", "--top-p", "0.9"}));
  ASSERT_TRUE(first) << first.error().message;
  first->tensor_parallel = 2;
  const auto resumed = merge_options(to_json(*first), given_by({"--threads", "1"}));
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_EQ(resumed->seed, 7u);
  EXPECT_EQ(resumed->top_p, 0.9);
  EXPECT_EQ(resumed->threads, 1);
  EXPECT_EQ(resumed->tensor_parallel, 2);
  const auto typed = merge_options(to_json(*first), given_by({"--tp", "3"}));
  EXPECT_EQ(typed->tensor_parallel, 3);
  EXPECT_EQ(to_plan_options(*resumed)->seed, 7u);
}

TEST(RunOptions, WhatHasMovedIsSaidWithItsFlag) {
  const Json recorded = {{"baseline", "/nowhere/base run"}, {"golden", "/nowhere/golden"}};
  EXPECT_THAT(check_recorded_paths("out/a", recorded, Json::object()).error().message,
              HasSubstr("cannot resume out/a: its --baseline /nowhere/base run is not there any "
                        "more. Say where it is now: assay run --resume out/a --baseline PATH"));
  EXPECT_TRUE(check_recorded_paths("out/a", recorded, {{"baseline", "/else"}}))
      << "bundled goldens may be gone";
}

TEST(RunOptions, ASuiteMustBeNamed) {
  EXPECT_THAT(merge_options(Json::object(), Json::object()).error().message, HasSubstr("suite"));
}

TEST(CommandLine, QuotesOnlyWhatAShellWouldSplit) {
  EXPECT_EQ(shell_quoted("out/a-b_1.5"), "out/a-b_1.5");
  EXPECT_EQ(shell_quoted("two words"), "'two words'");
  EXPECT_EQ(shell_quoted("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_THAT(command_line(), HasSubstr("run_options_test"));
}

TEST(ProgressText, ShowsRateAndTimeLeft) {
  harness::Progress p;
  p.n_done = 30;
  p.n_total = 120;
  p.n_earlier = 10;
  p.n_tokens = 5000;
  p.elapsed_s = 20;
  EXPECT_EQ(progress_text(p, 8),
            "[##......]  30/120 samples (10 from before)  250 tok/s  eta 1:30");
  EXPECT_EQ(progress_text(p, 0), "30/120 samples (10 from before)  250 tok/s  eta 1:30");
  p.n_done = p.n_total;
  p.finished = true;
  EXPECT_THAT(progress_text(p, 0), HasSubstr("in 0:20"));
  p.n_tokens = 0;
  EXPECT_THAT(progress_text(p, 0), Not(HasSubstr("tok/s"))) << "nothing was counted";
}

TEST(Verbs, EveryVerbTeachesByExample) {
  for (const Verb* verb : all_verbs()) {
    EXPECT_FALSE(verb->summary.empty());
    EXPECT_THAT(std::string(verb->examples), HasSubstr("assay " + std::string(verb->name)));
    CLI::App app;
    EXPECT_TRUE(verb->setup(app));
  }
}

}  // namespace
}  // namespace assay::cli
