// Kernels whose warps or blocks hand each other pieces of shared memory give the same bits every
// time, also where other programs have the GPU in turn with them and stop launches midway: who
// takes a piece too late then finds the next in its place. Needs a GPU.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/every_time_testing.cuh"
#include "kernels/moe_testing.cuh"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

// Rings of as many stages as fit, and far more units; one token, and the most that share them.
TEST_F(Cuda, GptqProductsBitsAreTheSameEveryTime) {
  if (under_racecheck()) GTEST_SKIP() << "gptq_cuda_test.cu has racecheck's sizes";
  Random random(31);
  for (const int bits : {4, 8})
    for (const int n_tokens : {1, 4}) {
      constexpr int kRows = 4096, kCols = 6144;
      DeviceWeights memory;
      const DeviceMatrix m = gptq(bits, kRows, kCols, 128, false, random).upload(memory);
      const DeviceArray<float> x(random.floats(static_cast<std::size_t>(n_tokens) * kCols)),
          y = poisoned(static_cast<std::size_t>(n_tokens) * kRows);
      ASSERT_TRUE(m.in_units());
      expect_same_every_time(
          y, [&] { project_cuda(m, x.data(), kCols, n_tokens, y.data(), kRows, false, nullptr); },
          std::to_string(bits) + " bits, " + std::to_string(n_tokens) + " tokens");
    }
}

// In units, in partial sums, and in slices.
TEST_F(Cuda, ExpertsBitsAreTheSameEveryTime) {
  if (under_racecheck()) GTEST_SKIP() << "moe_*_cuda_test.cu have racecheck's sizes";
  if (max_shared_bytes() < kSumsSharedBytes || max_shared_bytes() < kSlicesSharedBytes)
    GTEST_SKIP() << "a block has " << max_shared_bytes() << " bytes of shared memory here, fewer "
                 << "than tables take: this test shows nothing; run it on an H100 or H200";
  Random random(32);
  const Books books = codebooks(random);
  struct Laid {
    const char* plan;  // what its text begins with
    int tiers[3];
    How how;
  };
  const How units = {.shared_bytes = max_shared_bytes()};
  How two_stages = units;
  two_stages.short_rounds = true;
  for (const Laid& laid :
       {Laid{"vq units", {0, 2, 3}, units},
        {"vq units", {1, 3, 0}, two_stages},
        {"vq partial sums", {0, 0, 0}, {.sums_tokens = 2}},
        {"vq slices (partial sums, units)", {0, 2, 1}, {.sums_tokens = 2, .slices = true}}}) {
    constexpr int kExperts = 4;
    Layer l = random_layer(2048, 1024, kExperts, 2, 2, random);
    for (int e = 0; e < kExperts; ++e) add_expert(l, books, laid.tiers, 128, random);
    const LaidOutMoe moe(l, laid.how);
    const DeviceArray<float> before(l.residual);
    EXPECT_TRUE(moe.plan().starts_with(laid.plan)) << moe.plan();
    expect_same_every_time(
        moe.residual(),
        [&] {
          copy_on_device(moe.residual().data(), before.data(), before.size() * sizeof(float),
                         nullptr);
          moe.launch();
        },
        laid.plan);
  }
}

// Tests whose names end so, in several programs at once, of which each has the GPU for a few ms in
// turn (under MPS they share it, and this shows nothing).
constexpr char kFilter[] = "--gtest_filter=*EveryTime", kAllOfThem[] = "[  PASSED  ] 3 tests.";

// This one's, but for what GoogleTest would take from it: parts, repetitions, a report's place.
std::vector<char*> environment_without_gtest() {
  std::vector<char*> out;
  for (char** v = environ; *v != nullptr; ++v)
    if (!std::string_view(*v).starts_with("GTEST_")) out.push_back(*v);
  out.push_back(nullptr);
  return out;
}
class Program {
 public:
  explicit Program(std::string log) : log_(std::move(log)) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    std::string program = "/proc/self/exe", filter = kFilter;
    char* arguments[] = {program.data(), filter.data(), nullptr};
    const int error = posix_spawn(&pid_, program.c_str(), &files, nullptr, arguments,
                                  environment_without_gtest().data());
    posix_spawn_file_actions_destroy(&files);
    EXPECT_EQ(error, 0) << std::strerror(error);
    if (error != 0) pid_ = -1;
  }
  Program(const Program&) = delete;
  ~Program() { std::remove(log_.c_str()); }

  void expect_success() const {
    if (pid_ < 0) return;
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    std::ostringstream said;
    said << std::ifstream(log_).rdbuf();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << said.str();
    EXPECT_NE(said.str().find(kAllOfThem), std::string::npos) << said.str();
  }

 private:
  std::string log_;
  pid_t pid_ = -1;
};

TEST_F(Cuda, WhatIsTheSameEveryTimeIsSoBesideOtherPrograms) {
  if (under_racecheck()) GTEST_SKIP() << "each program would take all of racecheck's time";
  if (max_shared_bytes() < kSlicesSharedBytes)
    GTEST_SKIP() << "experts by tables do not fit here: run it on an H100 or H200";
  std::deque<Program> programs;
  for (int i = 0; i < 4; ++i)
    programs.emplace_back(testing::TempDir() + "every_time_" + std::to_string(getpid()) + "_" +
                          std::to_string(i));
  for (const Program& p : programs) p.expect_success();
}

}  // namespace
}  // namespace assay::kernels
