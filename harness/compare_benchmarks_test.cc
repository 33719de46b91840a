// Two files of assay-kernels, in the very words that it writes with --benchmark_out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "harness/compare_speed.h"

namespace assay::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const std::string kNorm = "rms_norm_cuda/hidden/glm-5.2/rows:1/iterations:10/manual_time",
                  kLayer =
                      "moe_layer_cuda/glm-5.2/bits:mixture/shared:gptq4/graph/iterations:10/"
                      "manual_time";

const char* const kContext = R"({
    "date": "2026-11-29T17:10:51+00:00",
    "host_name": "h200",
    "executable": "build/gpu/kernels/bench/assay-kernels",
    "num_cpus": 16,
    "mhz_per_cpu": 2100,
    "cpu_scaling_enabled": false,
    "caches": [{"type": "Data", "level": 1, "size": 49152, "num_sharing": 1}],
    "load_avg": [8.46387,7.31445,4.41992],
    "library_build_type": "release",
    "gpu": "NVIDIA H200",
    "gpu_copy_GB_per_s": "4225",
    "gpu_l2_MiB": "50"
  })";
const char* const kRepetition = R"({
      "family_index": 0,
      "per_family_instance_index": 0,
      "run_type": "iteration",
      "repetitions": 12,
      "repetition_index": 1,
      "threads": 1,
      "iterations": 10,
      "real_time": 2.9999999999999996e+00,
      "cpu_time": 5.8770000000000522e-01,
      "time_unit": "us",
      "B/s": 3.3333333333333337e+11,
      "of_copy": 7.9000000000000001e-02,
      "x_floor": 2.5000000000000000e+00
    })";
const char* const kError = R"({
      "family_index": 1,
      "per_family_instance_index": 0,
      "run_type": "iteration",
      "repetitions": 12,
      "repetition_index": 0,
      "threads": 1,
      "error_occurred": true,
      "error_message": "wrong result",
      "iterations": 0,
      "real_time": 0.0000000000000000e+00,
      "cpu_time": 0.0000000000000000e+00,
      "time_unit": "us"
    })";

Json entry(const char* text, const std::string& name) {
  Json one = Json::parse(text);
  one["name"] = one["run_name"] = name;
  return one;
}

// Twelve repetitions around `us`, 0.1 % apart, and what Google Benchmark makes of them.
Json repetitions(const std::string& name, double us, int n = 12) {
  Json out = Json::array();
  for (int i = 0; i < n; ++i) {
    Json one = entry(kRepetition, name);
    one["repetition_index"] = i;
    one["real_time"] = us * (1 + 0.001 * ((i * 7) % n));
    out.push_back(one);
  }
  Json mean = entry(kRepetition, name);
  mean["name"] = name + "_mean";
  mean["run_type"] = "aggregate";
  mean["aggregate_name"] = "mean";
  mean["aggregate_unit"] = "time";
  mean["real_time"] = 1e9;
  out.push_back(mean);
  return out;
}

Json file(std::initializer_list<Json> benchmarks) {
  Json all = Json::array();
  for (const Json& one : benchmarks) all.insert(all.end(), one.begin(), one.end());
  return {{"context", Json::parse(kContext)}, {"benchmarks", all}};
}

BenchmarkTimes read(const Json& json) {
  const auto times = parse_google_benchmark(json, "new.json");
  EXPECT_TRUE(times) << times.error().message;
  return *times;
}

TEST(KernelFiles, EveryKernelHasAVerdict) {
  const BenchmarkTimes base = read(file({repetitions(kNorm, 3), repetitions(kLayer, 80)})),
                       slow = read(file({repetitions(kNorm, 3), repetitions(kLayer, 96)}));
  EXPECT_EQ(not_comparable(base, slow), "");
  const Speed speed = compare_benchmarks(base, slow);
  ASSERT_THAT(speed.rows, SizeIs(2));
  EXPECT_EQ(speed.rows[0].verdict, RowVerdict::kPass);
  EXPECT_EQ(speed.rows[1].verdict, RowVerdict::kRegression);
  EXPECT_NEAR(speed.rows[1].slower.estimate, 0.2, 0.001);
  EXPECT_THAT(speed.regressions, ElementsAre(AllOf(HasSubstr(kLayer), HasSubstr("20.0 %"))));
  EXPECT_THAT(speed.warnings, IsEmpty());
}

TEST(KernelFiles, EqualOnesPass) {
  const BenchmarkTimes base = read(file({repetitions(kNorm, 3), repetitions(kLayer, 80)}));
  const Speed speed = compare_benchmarks(base, base);
  EXPECT_THAT(speed.rows, SizeIs(2));
  EXPECT_THAT(speed.regressions, IsEmpty());
  EXPECT_THAT(speed.warnings, IsEmpty());
  EXPECT_THAT(speed.inconclusive, IsEmpty());
}

TEST(KernelFiles, AKernelThatIsGoneIsAWarningAndANewOneIsNone) {
  const BenchmarkTimes both = read(file({repetitions(kNorm, 3), repetitions(kLayer, 80)})),
                       one = read(file({repetitions(kNorm, 3)}));
  const Speed gone = compare_benchmarks(both, one), added = compare_benchmarks(one, both);
  EXPECT_THAT(gone.warnings, ElementsAre(AllOf(HasSubstr("base's file only"), HasSubstr(kLayer))));
  EXPECT_THAT(gone.alone, ElementsAre(kLayer));
  EXPECT_THAT(added.warnings, IsEmpty());
  EXPECT_THAT(added.alone, ElementsAre(kLayer));
}

TEST(KernelFiles, EveryKernelThatFailedIsNamedOnce) {
  const Json failed = Json::array(
      {entry(kError, kLayer), entry(kError, kLayer), entry(kError, "embed_cuda/glm-5.2/rows:1")});
  const auto times = parse_google_benchmark(file({repetitions(kNorm, 3), failed}), "new.json");
  ASSERT_FALSE(times);
  const std::string& message = times.error().message;
  EXPECT_THAT(message, AllOf(HasSubstr("new.json"), HasSubstr(kLayer + " (wrong result)"),
                             HasSubstr("embed_cuda/glm-5.2/rows:1 (wrong result)")));
  EXPECT_EQ(message.find(kLayer), message.rfind(kLayer));
}

TEST(KernelFiles, AreOfOneGpu) {
  Json other = file({repetitions(kNorm, 3)});
  const BenchmarkTimes base = read(other);
  other["context"]["gpu"] = "NVIDIA H100 80GB HBM3";
  EXPECT_THAT(not_comparable(base, read(other)),
              AllOf(HasSubstr("gpu differs"), HasSubstr("H200"), HasSubstr("H100")));
  // A build without CUDA has no row of a GPU.
  other["context"].erase("gpu");
  EXPECT_EQ(not_comparable(base, read(other)), "");
}

TEST(KernelFiles, ARoofThatMovedIsWarnedOf) {
  Json other = file({repetitions(kNorm, 3)});
  const BenchmarkTimes base = read(other);
  other["context"]["gpu_copy_GB_per_s"] = "4100";
  EXPECT_THAT(compare_benchmarks(base, read(other)).warnings, IsEmpty());
  other["context"]["gpu_copy_GB_per_s"] = "3800";
  EXPECT_THAT(compare_benchmarks(base, read(other)).warnings,
              ElementsAre(AllOf(HasSubstr("3800"), HasSubstr("4225"))));
  other["context"]["gpu_copy_GB_per_s"] = 3800;
  EXPECT_THAT(compare_benchmarks(base, read(other)).warnings, IsEmpty()) << "not ours";
}

TEST(KernelFiles, TooFewRepetitionsNameTheFlag) {
  const BenchmarkTimes few = read(file({repetitions(kNorm, 3, 5), repetitions(kLayer, 80, 5)}));
  EXPECT_THAT(
      compare_benchmarks(few, few).inconclusive,
      ElementsAre(AllOf(HasSubstr(kNorm), HasSubstr(kLayer), HasSubstr("5 and 5 repetitions"),
                        HasSubstr("--benchmark_repetitions=9"))));
}

// 2 / C(18, 9) = 4.1e-5 is the least p of nine against nine: after Holm, too much for 300 rows.
TEST(KernelFiles, SoManyRowsNeedMoreRepetitions) {
  const auto all = [](double us, int n) {
    Json out = Json::array();
    for (int i = 0; i < 300; ++i) {
      const Json one = repetitions("kernel:" + std::to_string(i), us, n);
      out.insert(out.end(), one.begin(), one.end());
    }
    return read(file({out}));
  };
  const Speed few = compare_benchmarks(all(10, 9), all(12, 9));
  EXPECT_THAT(few.regressions, IsEmpty());
  EXPECT_THAT(few.inconclusive, ElementsAre(AllOf(HasSubstr("300 rows: beside 299 others"),
                                                  HasSubstr("--benchmark_repetitions=10"))));
  const Speed enough = compare_benchmarks(all(10, 10), all(12, 10));
  EXPECT_THAT(enough.regressions, SizeIs(300));
  EXPECT_THAT(enough.inconclusive, IsEmpty());
}

}  // namespace
}  // namespace assay::harness
