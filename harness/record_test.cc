#include "harness/record.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <barrier>
#include <csignal>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>

#include "harness/test_support.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Json head(int seed = 0) {
  return {{"options", Json::object()},
          {"plan", {{"seed", seed}, {"suites", Json::array({{{"hash", "abc"}}})}}},
          {"identity", {{"model", "m1"}}},
          {"provenance", {{"command", "assay run"}, {"started", "now"}}}};
}

Sample sample(const std::string& id) {
  Sample s = made_sample(id, "c", "ja", Correctness::kCorrect);
  s.thinking = "考え\"\n<b>";
  s.answer = "答えは１８です";
  s.extraction = Extraction{"18", "rule", 9, 15};
  s.prompt_ids = {1, 2, 3};
  s.ids = {4, 5};
  return s;
}

std::string error_of(const Result<RunRecord>& record) {
  return record ? "no error" : record.error().message;
}

TEST(Record, ASampleComesBackAsItWasWritten) {
  const Sample s = sample("a");
  const auto back = parse_sample(to_json(s), "here");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json(*back), to_json(s));
  EXPECT_FALSE(to_json(s)["extraction"].contains("per")) << "older records keep their hash";
}

TEST(Record, AnExtractionInPercentComesBackAsOne) {
  Sample s = sample("a");
  s.extraction->per = 100;
  const auto back = parse_sample(to_json(s), "here");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->extraction->per, 100);
}

TEST(Record, AFolderWithAnythingInItIsRefused) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "notes.txt") << "mine";
  EXPECT_THAT(error_of(RunRecord::create(folder.path(), head())),
              AllOf(HasSubstr("not empty"), HasSubstr("no run.json in it"), HasSubstr("--out"),
                    Not(HasSubstr("--resume"))))
      << "what cannot be continued is not said to be";
  EXPECT_THAT(error_of(RunRecord::resume(folder.path(), head())),
              AllOf(HasSubstr("holds no run: there is no run.json in it. Name the folder"),
                    HasSubstr("in another folder")));
  EXPECT_EQ(*read_file(folder.path() / "notes.txt"), "mine");
  ASSERT_TRUE(RunRecord::create(folder.path() / "run", head()));
  EXPECT_THAT(
      error_of(RunRecord::create(folder.path() / "run", head())),
      HasSubstr("Continue it with --resume " + (folder.path() / "run").string() + ", or c"));
}

TEST(Record, WhatAKilledProcessLeftBeforeItsFirstFileIsNoRun) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "run.json.tmp") << "{\"form";
  EXPECT_THAT(error_of(RunRecord::resume(folder.path(), head())),
              HasSubstr("it is empty. Begin one with assay run SUITE --model DIR --out " +
                        folder.path().string()));
  EXPECT_EQ(error_of(RunRecord::create(folder.path(), head())), "no error");
  EXPECT_FALSE(fs::exists(folder.path() / "run.json.tmp"));
}

// The other has the samples, and has not come to its run.json.
TEST(Record, AFolderThatAnotherProcessBeginsInIsLeftToIt) {
  const TemporaryFolder folder;
  const fs::path samples = folder.path() / kSamplesFile;
  const int other = ::open(samples.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  EXPECT_THAT(error_of(RunRecord::create(folder.path(), head())), HasSubstr("another process"));
  EXPECT_FALSE(fs::exists(folder.path() / kRunFile));
  ::close(other);  // killed then
  EXPECT_EQ(error_of(RunRecord::create(folder.path(), head())), "no error");
}

TEST(Record, OfSeveralThatBeginInOneFolderAtOnceOneDoesAndTheRunIsItsOwn) {
  const TemporaryFolder folder;
  for (int round = 0; round < 20; ++round) {
    const fs::path run = folder.path() / std::to_string(round);
    constexpr int kThreads = 4;
    std::barrier begin(kThreads);
    std::mutex mutex;
    std::vector<int> seeds;
    std::vector<std::optional<RunRecord>> kept(kThreads);  // each ends behind all
    {
      std::vector<std::jthread> threads;
      for (int seed = 0; seed < kThreads; ++seed)
        threads.emplace_back([&, seed] {
          begin.arrive_and_wait();
          auto record = RunRecord::create(run, head(seed));
          if (!record) return;
          const std::lock_guard lock(mutex);
          seeds.push_back(seed);
          kept[static_cast<std::size_t>(seed)].emplace(std::move(*record));
        });
    }
    ASSERT_EQ(seeds.size(), 1u);
    EXPECT_EQ(read_run_json(run)->at("plan").at("seed"), seeds[0]);
  }
}

TEST(Record, AnUnwritableFolderIsAnErrorThatNamesIt) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "x";
  EXPECT_THAT(error_of(RunRecord::create(folder.path() / "file/run", head())),
              AllOf(HasSubstr("file/run"), HasSubstr("--out")));
}

TEST(Record, ResumeFindsWhatWasFinished) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "run";
  {
    auto record = RunRecord::create(out, head());
    ASSERT_TRUE(record) << record.error().message;
    ASSERT_TRUE(record->append(sample("a")));
    ASSERT_TRUE(record->append(sample("b")));
  }
  const auto record = RunRecord::resume(out, head());
  ASSERT_TRUE(record) << record.error().message;
  ASSERT_EQ(record->earlier().size(), 2u);
  EXPECT_EQ(to_json(record->earlier()[1]), to_json(sample("b")));
}

TEST(Record, OneProcessAtATimeAddsSamples) {
  const TemporaryFolder folder;
  const fs::path run = folder.path() / "run";
  {
    auto first = RunRecord::create(run, head());
    ASSERT_TRUE(first) << error_of(first);
    ASSERT_TRUE(first->append(sample("a")));
    EXPECT_THAT(
        error_of(RunRecord::resume(run, head())),
        AllOf(HasSubstr("another process"), HasSubstr(run.string()), HasSubstr("--resume")));
    EXPECT_THAT(error_of(RunRecord::create(run, head())), HasSubstr("another process"))
        << "what is going on cannot be continued";
    ASSERT_TRUE(first->append(sample("b")));
  }
  const auto second = RunRecord::resume(run, head());
  ASSERT_TRUE(second) << error_of(second);
  EXPECT_EQ(second->earlier().size(), 2u);
}

TEST(Record, ATornLastLineIsDroppedAtEveryCutPoint) {
  const std::string first = to_json(sample("a")).dump() + "\n";
  const std::string text = first + to_json(sample("b")).dump() + "\n";
  for (std::size_t cut = first.size(); cut < text.size(); cut += 7) {
    const auto lines = parse_sample_lines(text.substr(0, cut), "samples.jsonl");
    ASSERT_TRUE(lines) << cut << lines.error().message;
    EXPECT_EQ(lines->samples.size(), 1u) << cut;
    EXPECT_EQ(lines->n_bytes, first.size()) << cut;
  }
  EXPECT_EQ(parse_sample_lines(text, "s")->samples.size(), 2u);
}

TEST(Record, DamageInTheMiddleIsAnErrorNotALoss) {
  const std::string line = to_json(sample("a")).dump() + "\n";
  EXPECT_THAT(parse_sample_lines("{\"broken\n" + line, "s.jsonl").error().message,
              HasSubstr("s.jsonl:1"));
  EXPECT_THAT(parse_sample_lines(line + line, "s.jsonl").error().message,
              AllOf(HasSubstr("s.jsonl:2"), HasSubstr("twice")));
}

TEST(Record, DamageSaysHowToGoOn) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "run";
  ASSERT_TRUE(RunRecord::create(out, head()));
  const std::string line = to_json(sample("a")).dump() + "\n";
  std::ofstream(out / "samples.jsonl") << "{\"broken\n" << line;
  EXPECT_THAT(error_of(RunRecord::resume(out, head())),
              AllOf(HasSubstr("samples.jsonl:1"), HasSubstr(". Delete that line, and its sample is "
                                                            "asked again; or start a new run")));
  std::ofstream(out / "samples.jsonl") << line;
  std::ofstream(out / "steps.bin") << std::string(100, 'x');
  EXPECT_THAT(error_of(RunRecord::resume(out, head())), HasSubstr(". Delete that file, and go on"));
  fs::remove(out / "steps.bin");
  EXPECT_EQ(error_of(RunRecord::resume(out, head())), "no error");
}

TEST(Record, ResumeRefusesAnotherRunAndNamesTheDifference) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "run";
  ASSERT_TRUE(RunRecord::create(out, head()));
  EXPECT_THAT(error_of(RunRecord::resume(out, head(1))), HasSubstr("plan.seed was 0, is 1"));
  Json other = head();
  other["identity"]["model"] = "m2";
  EXPECT_THAT(
      error_of(RunRecord::resume(out, other)),
      AllOf(HasSubstr("identity.model was \"m1\", is \"m2\". The model's files are not those"),
            Not(HasSubstr("recorded options"))));
  other = head();
  other["plan"]["suites"][0]["hash"] = "abd";
  EXPECT_THAT(error_of(RunRecord::resume(out, other)), HasSubstr("plan.suites[0].hash"));
  EXPECT_THAT(error_of(RunRecord::resume(folder.path(), head())), HasSubstr("holds no run"));
}

// A file-size limit stops a write in its middle, as a full disk does.
TEST(Record, AFullDiskKeepsTheFinishedSamples) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "run";
  const Sample s = sample("a");
  const auto line_size = to_json(s).dump().size() + 1;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::string message;
  {
    auto record = RunRecord::create(out, head());
    ASSERT_TRUE(record);
    ASSERT_TRUE(record->append(s));
    const rlimit limit = {line_size + line_size / 2, old_limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
    const auto full = record->append(sample("b"));
    ::setrlimit(RLIMIT_FSIZE, &old_limit);
    ASSERT_FALSE(full);
    message = full.error().message;
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(message, AllOf(HasSubstr("finished samples are kept"), HasSubstr("--resume")));
  EXPECT_EQ(fs::file_size(out / "samples.jsonl"), line_size);
  EXPECT_EQ(RunRecord::resume(out, head())->earlier().size(), 1u);
}

}  // namespace
}  // namespace assay::harness
