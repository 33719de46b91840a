// Kernels whose warps or blocks hand each other pieces of shared memory give the same bits every
// time, also where other programs have the GPU in turn with them and stop launches midway: who
// takes a piece too late then finds the next in its place. Needs a GPU.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/every_time_testing.cuh"
#include "kernels/moe_testing.cuh"
#include "kernels/project_cuda.h"

extern char** environ;

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
      const auto launch = [&] {
        project_cuda(m, x.data(), kCols, n_tokens, y.data(), kRows, false, nullptr);
      };
      launch();
      Watched watched(y);
      for (int i = 1; i <= n_launches(); ++i) {
        launch();
        watched.look(i);
      }
      EXPECT_EQ(watched.bad_launches(), "") << bits << " bits, " << n_tokens << " tokens";
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
    const auto launch = [&] {
      copy_on_device(moe.residual().data(), before.data(), before.size() * sizeof(float), nullptr);
      moe.launch();
    };
    launch();
    Watched watched(moe.residual());
    for (int i = 1; i <= n_launches(); ++i) {
      launch();
      watched.look(i);
    }
    EXPECT_TRUE(moe.plan().starts_with(laid.plan)) << moe.plan();
    EXPECT_EQ(watched.bad_launches(), "") << laid.plan;
  }
}

// This program's tests of that name, by some of it side by side: a GPU that several programs want
// gives each a turn of a few ms.
TEST_F(Cuda, WhatIsTheSameEveryTimeIsSoBesideOtherPrograms) {
  if (under_racecheck()) GTEST_SKIP() << "each program would take all of racecheck's time";
  constexpr int kPrograms = 4;
  std::vector<pid_t> programs;
  const auto log = [](int i) {
    return testing::TempDir() + "every_time_" + std::to_string(getpid()) + "_" + std::to_string(i);
  };
  std::string program = "/proc/self/exe", filter = "--gtest_filter=*EveryTime";
  for (int i = 0; i < kPrograms; ++i) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, log(i).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    char* arguments[] = {program.data(), filter.data(), nullptr};
    pid_t pid = 0;
    EXPECT_EQ(posix_spawn(&pid, program.c_str(), &files, nullptr, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    if (pid > 0) programs.push_back(pid);
  }
  for (std::size_t i = 0; i < programs.size(); ++i) {
    int status = 0;
    waitpid(programs[i], &status, 0);
    std::ostringstream said;
    said << std::ifstream(log(static_cast<int>(i))).rdbuf();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << said.str();
    EXPECT_NE(said.str().find("[       OK ] Cuda.AttentionsBits"), std::string::npos) << said.str();
    std::remove(log(static_cast<int>(i)).c_str());
  }
}

}  // namespace
}  // namespace assay::kernels
