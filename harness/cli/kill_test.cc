// Resumed = uninterrupted, of the program itself: `assay run` is killed at random moments, most of
// them while it writes, and meets full disks, at least 200 times; whenever it is let to its end,
// the folder holds what an uninterrupted run leaves.
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <random>

#include "harness/cli/cli_testing.h"
#include "harness/cli/interrupted_run.h"
#include "harness/cli/tiny_model.h"

namespace assay {
namespace {

using Clock = std::chrono::steady_clock;

class Kill : public Cli {
 protected:
  Kill() { make_tiny_model(dir_ / "model"); }

  // Begins the run, or goes on with what is there.
  std::vector<std::string> command(const fs::path& out) const {
    std::error_code ignored;
    if (fs::exists(out / "run.json", ignored)) return {"run", "--resume", out};
    return {
        "run",   "thinking", "--model",      dir_ / "model", "--limit",  std::to_string(kSamples),
        "--out", out,        "--max-tokens", "24",           "--golden", "none"};
  }

  static void wait_until(const std::function<bool()>& holds, double most_s) {
    const auto end = Clock::now() + std::chrono::duration<double>(most_s);
    while (!holds() && Clock::now() < end) usleep(200);
  }

  static constexpr int kSamples = 40;
};

TEST_F(Kill, TwoHundredTimesAndTheRecordIsThatOfAnUninterruptedRun) {
  const auto begin = Clock::now();
  ASSERT_EQ(assay(command(dir_ / "whole")).code, 1) << "random weights fail every gate";
  double whole_s = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto whole = lasting_contents(dir_ / "whole");
  ASSERT_EQ(count_lines(dir_ / "whole" / "samples.jsonl"), kSamples);
  std::uintmax_t largest = 0;
  for (const auto& entry : fs::directory_iterator(dir_ / "whole"))
    largest = std::max(largest, entry.file_size());

  constexpr unsigned kSeed = 20261126;
  std::mt19937 random(kSeed);
  const auto draw = [&](double most) {
    return std::uniform_real_distribution<double>(0, most)(random);
  };
  constexpr int kKills = 200, kFullDisks = 40, kMostFaults = 12;
  int n_kills = 0, n_full = 0, n_torn = 0, n_cut = 0, n_runs = 0;
  std::map<std::string, int> killed, full;
  for (; n_kills < kKills || n_full < kFullDisks; ++n_runs) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << ", run " << n_runs);
    const fs::path out = dir_ / std::to_string(n_runs);
    for (int f = 0;; ++f) {
      const bool last = f == kMostFaults;
      const bool disk = !last && random() % 5 == 0;
      // As likely among the first bytes of a file as in each later doubling of it.
      const auto byte =
          static_cast<rlim_t>(100 * std::exp(draw(std::log(static_cast<double>(largest) / 100.0))));
      Program program(command(out), disk ? byte : 0);
      if (!last && !disk) {
        const auto n_lines = [&] { return count_lines(out / "samples.jsonl"); };
        switch (random() % 3) {
          case 0:  // at any moment
            usleep(static_cast<useconds_t>(1e6 * draw(1.2 * whole_s)));
            break;
          case 1: {  // after some sample
            const int n = static_cast<int>(random() % kSamples);
            wait_until([&] { return n_lines() >= n; }, whole_s);
            usleep(random() % 3000);
            break;
          }
          default:  // while the verdict and what is beside it are written
            wait_until([&] { return n_lines() == kSamples; }, 3 * whole_s);
            usleep(random() % 60000);
        }
        program.kill_now();
      }
      const Outcome outcome = program.wait();
      if (outcome.code == 1) break;
      const std::string stage = stage_of(out, kSamples);
      if (disk) {
        ASSERT_EQ(outcome.code, 2) << outcome.err;
        ++n_full;
        ++full[stage];
        EXPECT_FALSE(has_torn_end(out)) << "what could not be written whole is taken back";
      } else {
        ASSERT_EQ(outcome.code, -SIGKILL) << outcome.err;
        ++n_kills;
        ++killed[stage];
        n_torn += has_torn_end(out);
      }
      if (stage == "among samples" && random() % 4 == 0)
        n_cut += tear_last_line(out, 1 + random() % 400);
    }
    const auto resumed = lasting_contents(out);
    for (const auto& [what, text] : whole) EXPECT_EQ(resumed.at(what), text) << what;
    fs::remove_all(out);
    ASSERT_FALSE(HasFailure());
  }
  for (const char* stage : {"among samples", "before the verdict", "among reports"})
    EXPECT_GT(killed[stage], 0) << stage;
  EXPECT_GT(n_cut, 0);
  const auto print = [](const char* what, int n, const std::map<std::string, int>& stages) {
    std::cout << n << " " << what << ":";
    for (const auto& [stage, count] : stages) std::cout << " " << count << " " << stage << ";";
    std::cout << "\n";
  };
  print("kills", n_kills, killed);
  print("full disks", n_full, full);
  std::cout << n_torn << " torn ends found, " << n_cut << " last lines cut; " << n_runs
            << " runs brought to their end\n";
}

}  // namespace
}  // namespace assay
