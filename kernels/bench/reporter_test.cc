#include "kernels/bench/reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace assay::kernels {
namespace {

using testing::ElementsAre;

struct Ran {
  KeepingReporter reporter;
  std::size_t n_matched = 0;
};
void run(Ran& out, const std::string& filter) {
  out.n_matched = benchmark::RunSpecifiedBenchmarks(&out.reporter, filter);
}

TEST(KernelBenchmarks, AWrongResultIsNamedOnceAndFailsTheProgram) {
  benchmark::RegisterBenchmark("right", [](benchmark::State& state) {
    int n = 0;
    for (auto _ : state) benchmark::DoNotOptimize(++n);
    state.counters["weights/s"] = 7;
  })->Iterations(1);
  benchmark::RegisterBenchmark("wrong", [](benchmark::State& state) {
    state.SkipWithError("wrong result");
  })->Repetitions(2);
  Ran all;
  run(all, "right|wrong");
  EXPECT_THAT(all.reporter.failed, ElementsAre("wrong/repeats:2"));
  EXPECT_THAT(all.reporter.weights_per_s, ElementsAre(std::pair{"right/iterations:1", 7.0}));
  EXPECT_EQ(exit_code_of(all.reporter, all.n_matched), 1);
  Ran right;
  run(right, "right");
  EXPECT_EQ(exit_code_of(right.reporter, right.n_matched), 0);
  Ran none;
  run(none, "neither");
  EXPECT_EQ(exit_code_of(none.reporter, none.n_matched), 2);
}

}  // namespace
}  // namespace assay::kernels
