// Resumed = uninterrupted, within seconds: sessions of a run with a fake target end in a child
// process at random moments and at random bytes, and with a full disk. kill_test does it to the
// program itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <iostream>
#include <random>

#include "harness/cli/interrupted_run.h"
#include "harness/cli/report_files.h"
#include "harness/provenance.h"
#include "harness/runner.h"
#include "harness/test_support.h"
#include "harness/verdict.h"

namespace assay::cli {
namespace {

using namespace assay::harness;
using Clock = std::chrono::steady_clock;

enum class Fault { kNone, kKill, kKillAtByte, kDiskFull };

constexpr int kDone = 0, kFailed = 2;

// A reply of some length, with the figures of its steps; the same for the same question.
Result<Reply> answer(const std::string& prompt, const Request& request) {
  ASSAY_TRY(Reply reply, good_answer(prompt, request));
  std::string thinking = "考え、\"quoted\" <b>\n";
  for (std::size_t i = 0; i < prompt.size() * 7; ++i) thinking += "step " + std::to_string(i) + " ";
  if (request.prompt.back() == FakeTarget::kOpen)
    reply.ids = FakeTarget::thought(thinking, "It is 5.");
  for (std::size_t i = 0; i < reply.ids.size(); ++i) {
    StepFigures step{.logprob = -0.1F * static_cast<float>(i % 7),
                     .p_think_close = 1.0F / static_cast<float>(i + 2)};
    step.top[0] = {reply.ids[i], step.logprob};
    reply.steps.push_back(step);
  }
  return reply;
}

constexpr int kSamples = 8;

// What `assay run` does between reading its options and its exit code.
Result<void> one_session(const fs::path& out, unsigned order_seed) {
  const Plan plan = small_plan(Profile::kFull, {.limit = kSamples});
  FakeTarget target(answer, order_seed);
  const Json head = {{"options", Json::object()},
                     {"plan", plan.to_json()},
                     {"identity", target.identity()},
                     {"provenance", make_provenance("assay run sums", target.describe())}};
  std::error_code ignored;
  ASSAY_TRY(RunRecord record, fs::exists(out / "run.json", ignored) ? RunRecord::resume(out, head)
                                                                    : RunRecord::create(out, head));
  ASSAY_TRY(const RunResult result, run_plan(plan, target, record));
  Json metrics = Json::array();
  for (const Group& g : summarise(result.samples)) metrics.push_back(to_json(g));
  ASSAY_TRY(const Json run,
            record.finish(result.samples, to_json(judge(plan, result.samples)), std::move(metrics),
                          {{"wall_s", result.wall_s}, {"n_tokens", result.n_tokens}}));
  ASSAY_TRY(const fs::path report, write_report_files(out, run, result.samples));
  return report.empty() ? fail("no report") : Result<void>();
}

// The status of a child that runs a session and meets `fault` after so long, or at that byte of
// any file.
int status_of_session(const fs::path& out, unsigned order_seed, Fault fault, double after_s,
                      rlim_t byte) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const rlimit no_core{0, 0}, size{byte, byte};
    setrlimit(RLIMIT_CORE, &no_core);
    if (fault == Fault::kKillAtByte || fault == Fault::kDiskFull) setrlimit(RLIMIT_FSIZE, &size);
    std::signal(SIGXFSZ, fault == Fault::kDiskFull ? SIG_IGN : SIG_DFL);
    const auto done = one_session(out, order_seed);
    if (!done && fault != Fault::kDiskFull) std::cerr << done.error().message << "\n";
    _exit(done ? kDone : kFailed);
  }
  if (fault == Fault::kKill) {
    usleep(static_cast<useconds_t>(1e6 * after_s));
    kill(child, SIGKILL);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}

TEST(Resume, InterruptedAnywhereARunEndsInTheRecordOfAnUninterruptedOne) {
  const TemporaryFolder folder;
  const auto begin = Clock::now();
  ASSERT_EQ(status_of_session(folder.path() / "whole", 1, Fault::kNone, 0, 0), kDone);
  const double whole_s = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto whole = lasting_contents(folder.path() / "whole");
  const int n_samples = count_lines(folder.path() / "whole" / "samples.jsonl");
  ASSERT_EQ(n_samples, kSamples);
  rlim_t largest = 0;
  for (const auto& entry : fs::directory_iterator(folder.path() / "whole"))
    largest = std::max<rlim_t>(largest, entry.file_size());

  constexpr unsigned kSeed = 20261125;
  std::mt19937 random(kSeed);
  const auto draw = [&](double most) {
    return std::uniform_real_distribution<double>(0, most)(random);
  };
  constexpr int kKills = 40, kFullDisks = 15, kMostFaults = 6;
  int n_runs = 0;
  int n_kills = 0, n_killed_at_byte = 0, n_full = 0, n_torn = 0, n_cut = 0;
  std::map<std::string, int> stages;
  for (; n_kills < kKills || n_full < kFullDisks; ++n_runs) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << ", run " << n_runs);
    const fs::path out = folder.path() / std::to_string(n_runs);
    for (int f = 0;; ++f) {
      const Fault fault = f == kMostFaults ? Fault::kNone : static_cast<Fault>(1 + random() % 3);
      // As likely among the first bytes of a file as in each later doubling of it.
      const auto byte = static_cast<rlim_t>(100 * std::exp(draw(std::log(largest / 100.0))));
      const int status = status_of_session(out, random(), fault, draw(1.2 * whole_s), byte);
      if (WIFEXITED(status) && WEXITSTATUS(status) == kDone) break;
      if (WIFEXITED(status)) {
        ASSERT_EQ(fault, Fault::kDiskFull) << "a session failed that should not";
        ++n_full;
        EXPECT_FALSE(has_torn_end(out)) << "what could not be written whole is taken back";
      } else {
        ASSERT_EQ(WTERMSIG(status), fault == Fault::kKill ? SIGKILL : SIGXFSZ);
        ++n_kills;
        n_killed_at_byte += fault == Fault::kKillAtByte;
        n_torn += has_torn_end(out);
      }
      const std::string stage = stage_of(out, n_samples);
      ++stages[stage];
      if (stage == "among samples" && random() % 4 == 0)
        n_cut += tear_last_line(out, 1 + random() % 400);
    }
    const auto resumed = lasting_contents(out);
    for (const auto& [what, text] : whole) EXPECT_EQ(resumed.at(what), text) << what;
  }
  for (const char* stage : {"before run.json", "among samples", "among reports"})
    EXPECT_GT(stages[stage], 0) << stage;
  std::cout << n_kills << " kills (" << n_killed_at_byte << " in the middle of a write), " << n_full
            << " times a full disk, " << n_torn << " torn ends, " << n_cut << " lines cut;";
  for (const auto& [stage, n] : stages) std::cout << " " << n << " " << stage << ",";
  std::cout << " " << n_runs << " runs\n";
}

}  // namespace
}  // namespace assay::cli
