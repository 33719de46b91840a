#include "kernels/bench/reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace assay::kernels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

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

TEST(KernelBenchmarks, AShareIsNoRateAndAFileHasNoColours) {
  benchmark::RegisterBenchmark("share",
                               [](benchmark::State& state) {
                                 for (auto _ : state) state.SetIterationTime(0.5);
                                 const auto rate = [](double v) {
                                   return benchmark::Counter(
                                       v, benchmark::Counter::kIsIterationInvariantRate);
                                 };
                                 state.counters["of_copy"] = rate(0.125);
                                 state.counters["B/s"] = rate(2);
                               })
      ->Iterations(3)
      ->UseManualTime();
  std::ostringstream printed;
  Ran ran;
  ran.reporter.SetOutputStream(&printed);
  testing::internal::CaptureStdout();  // where tables go, whatever the stream
  run(ran, "share");
  const std::string out = printed.str() + testing::internal::GetCapturedStdout();
  EXPECT_THAT(out, HasSubstr("4/s"));
  EXPECT_THAT(out, HasSubstr("0.25"));
  EXPECT_THAT(out, Not(HasSubstr("0.25/s")));
  EXPECT_THAT(out, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace assay::kernels
