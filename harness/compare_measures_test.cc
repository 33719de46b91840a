// Fidelity and speed of two runs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/compare_fidelity.h"
#include "harness/compare_speed.h"

namespace assay::harness {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Json group(const std::string& lang, double kld, const Json& error,
           const std::string& part = "all") {
  return {{"lang", lang},
          {"part", part},
          {"n_positions", 900},
          {"n_texts", 40},
          {"kld_coarsening", 0.001},
          {"kld", {{"mean", {{"value", kld}, {"error", error}}}}}};
}

// A run that measured `kld` for all and for Japanese, with standard error 0.004.
Json measured(double kld, double ja, const std::string& base = "bf16") {
  Json result = {
      {"base", {{"fingerprint", base}}},
      {"groups",
       {group("all", kld, 0.004), group("all", 9, 0.1, "thinking"), group("ja", ja, 0.004)}},
      {"noise_floor", group("all", 0.002, 0.0001)}};
  result["noise_floor"]["groups"] = {group("ja", 0.003, 0.0001)};
  return {
      {"measurements",
       {{{"measure", "divergence"}, {"state", "measured"}, {"hash", "h"}, {"result", result}}}}};
}

TEST(Fidelity, ALargeSureGrowthWarnsAndNothingElse) {
  const Fidelity f = compare_fidelity(measured(0.10, 0.10), measured(0.10, 0.15));
  ASSERT_THAT(f.rows, SizeIs(2)) << "thinking and answers together only";
  EXPECT_EQ(f.reason, "");
  EXPECT_EQ(f.rows[0].verdict, RowVerdict::kPass);
  EXPECT_EQ(f.rows[1].language, "ja");
  EXPECT_NEAR(f.rows[1].difference->value, 0.05, 1e-12);
  EXPECT_NEAR(*f.rows[1].difference->error, 0.004 * std::sqrt(2.0), 1e-12);
  // R: 2 * pt(-0.05 / (0.004 * sqrt(2)), 39)
  EXPECT_NEAR(f.rows[1].p, 7.4731375848865e-11, 1e-15);
  EXPECT_EQ(f.rows[1].noise_floor, 0.003);
  EXPECT_EQ(f.rows[1].verdict, RowVerdict::kWarn);
  EXPECT_THAT(f.warnings, Contains(HasSubstr("fidelity in ja: mean KLD")));
}

TEST(Fidelity, NeitherAnUnsureNorASmallNorANoisyGrowthWarns) {
  EXPECT_THAT(compare_fidelity(measured(0.10, 0.10), measured(0.112, 0.10)).warnings, IsEmpty())
      << "12 %, and p is 0.04";
  EXPECT_THAT(compare_fidelity(measured(1.00, 1.00), measured(1.05, 1.05)).warnings, IsEmpty())
      << "sure, and 5 %";
  Json noisy = measured(0.15, 0.15);
  noisy["measurements"][0]["result"]["noise_floor"] = group("all", 0.06, 0.001);
  EXPECT_THAT(compare_fidelity(measured(0.10, 0.10), noisy).warnings, IsEmpty())
      << "the base differs from itself by more";
  EXPECT_THAT(compare_fidelity(measured(0.15, 0.15), measured(0.10, 0.10)).warnings, IsEmpty())
      << "closer to the base";
}

TEST(Fidelity, SaysWhyItDoesNotJudge) {
  const Json some = measured(0.1, 0.1), none = Json::object();
  EXPECT_THAT(compare_fidelity(none, none).rows, IsEmpty());
  const Fidelity one = compare_fidelity(none, some);
  EXPECT_THAT(one.reason, HasSubstr("the baseline has no divergence"));
  ASSERT_THAT(one.rows, SizeIs(2));
  EXPECT_FALSE(one.rows[0].base);
  EXPECT_EQ(one.rows[0].candidate->value, 0.1);
  EXPECT_FALSE(one.rows[0].difference);
  EXPECT_THAT(compare_fidelity(some, measured(0.5, 0.5, "other")).reason, HasSubstr("bases"));
  Json suite = some, texts = some, captured = some;
  suite["measurements"][0]["hash"] = "i";
  EXPECT_THAT(compare_fidelity(some, suite).reason, HasSubstr("suites differ"));
  texts["measurements"][0]["result"]["groups"][0]["n_positions"] = 80;
  EXPECT_THAT(compare_fidelity(some, texts).reason, HasSubstr("different texts"));
  captured["measurements"][0]["result"]["groups"][0]["kld_coarsening"] = nullptr;
  EXPECT_THAT(compare_fidelity(some, captured).reason, HasSubstr("lower bound"));
}

std::vector<double> times(double from, double step, int n) {
  std::vector<double> out;
  for (int i = 0; i < n; ++i) out.push_back(from + step * ((i * 7) % n));
  return out;
}

TEST(Speed, ASureSlowdownBeyondItsFloorIsARegression) {
  // Medians 104 and 114, spread 1.4826 · 2 / 104 = 2.9 %: the floor is three times that.
  const SpeedRow row = speed_row("gemv", "ns", times(100, 1, 9), times(110, 1, 9), Better::kLess);
  EXPECT_DOUBLE_EQ(row.slower.estimate, 10.0 / 104);
  EXPECT_DOUBLE_EQ(row.floor, 3 * 1.4826 * 2 / 104);
  EXPECT_TRUE(row.conclusive);
  const Speed speed = judge_speed({row});
  EXPECT_EQ(speed.rows[0].verdict, RowVerdict::kRegression);
  EXPECT_THAT(speed.regressions, Contains(HasSubstr("gemv: slower by 9.6 %")));
  EXPECT_THAT(
      judge_speed({speed_row("gemv", "ns", times(110, 1, 9), times(100, 1, 9), Better::kLess)})
          .regressions,
      IsEmpty())
      << "faster";
}

TEST(Speed, ForRatesLessIsSlower) {
  const auto fast = times(100, 0.1, 9), slow = times(95, 0.1, 9);
  EXPECT_THAT(judge_speed({speed_row("decode", "tokens/s", fast, slow, Better::kMore)}).regressions,
              SizeIs(1));
  EXPECT_THAT(judge_speed({speed_row("decode", "tokens/s", slow, fast, Better::kMore)}).regressions,
              IsEmpty());
}

TEST(Speed, BelowTwoPercentIsNoSlowdownAndWithinTheSpreadAWarning) {
  EXPECT_EQ(judge_speed(
                {speed_row("a", "ns", times(100, 0.01, 12), times(101.5, 0.01, 12), Better::kLess)})
                .rows[0]
                .verdict,
            RowVerdict::kPass);
  // All of one side above all of the other, by less than three spreads.
  EXPECT_EQ(judge_speed({speed_row("a", "ns", times(100, 1, 9), times(109, 1, 9), Better::kLess)})
                .rows[0]
                .verdict,
            RowVerdict::kRegression);
  EXPECT_EQ(judge_speed({speed_row("a", "ns", times(100, 2, 9), times(117, 2, 9), Better::kLess)})
                .rows[0]
                .verdict,
            RowVerdict::kWarn);
}

TEST(Speed, FewRepetitionsDecideNothingAndCostNothing) {
  const SpeedRow few = speed_row("few", "ns", times(1, 0.1, 8), times(100, 0.1, 9), Better::kLess);
  const SpeedRow good =
      speed_row("good", "ns", times(100, 0.1, 9), times(110, 0.1, 9), Better::kLess);
  const Speed speed = judge_speed({few, good});
  EXPECT_THAT(speed.inconclusive, Contains(HasSubstr("few: 8 and 9 repetitions")));
  EXPECT_THAT(speed.regressions, SizeIs(1));
  EXPECT_EQ(speed.rows[1].p, speed.rows[1].p_holm);
  EXPECT_FALSE(speed_row("none", "ns", {}, {}, Better::kLess).conclusive);
}

Json benchmark(const std::string& name, const std::vector<double>& values,
               const std::string& unit = "ns") {
  Json out = Json::array();
  for (const double v : values)
    out.push_back({{"name", name},
                   {"run_type", "iteration"},
                   {"real_time", v},
                   {"cpu_time", v / 2},
                   {"time_unit", unit}});
  out.push_back({{"name", name + "_mean"}, {"run_type", "aggregate"}, {"real_time", 1}});
  return out;
}

Json file(const Json& benchmarks, const std::string& host = "a") {
  return {{"context", {{"host_name", host}, {"num_cpus", 2}, {"library_build_type", "release"}}},
          {"benchmarks", benchmarks}};
}

TEST(GoogleBenchmark, RepetitionsAreReadAndAggregatesAreNot) {
  const auto times_us =
      parse_google_benchmark(file(benchmark("gemv/64", {1.5, 2.5}, "us")), "new.json");
  ASSERT_TRUE(times_us) << times_us.error().message;
  ASSERT_THAT(times_us->ns, SizeIs(1));
  EXPECT_EQ(times_us->ns[0].first, "gemv/64");
  EXPECT_THAT(times_us->ns[0].second, testing::ElementsAre(1500, 2500));
}

TEST(GoogleBenchmark, SaysWhatIsWrongWithAFile) {
  const auto error = [](const Json& json) {
    const auto parsed = parse_google_benchmark(json, "new.json");
    return parsed ? "no error" : parsed.error().message;
  };
  EXPECT_THAT(error({{"runs", 1}}), HasSubstr("new.json: expected what Google Benchmark writes"));
  EXPECT_THAT(error(file(Json::array())), HasSubstr("--benchmark_repetitions=9"));
  EXPECT_THAT(error(file(benchmark("a", {1}, "min"))), HasSubstr("unknown time_unit \"min\""));
  EXPECT_THAT(error(file({{{"name", "a"}}})), HasSubstr("not what Google Benchmark writes"));
  EXPECT_THAT(error(file({{{"name", "a"},
                           {"error_occurred", true},
                           {"error_message", "no AVX-512"},
                           {"real_time", 0}}})),
              HasSubstr("benchmark a failed: no AVX-512"));
}

TEST(GoogleBenchmark, IsJudgedByTheSameRuleOnOneMachineOnly) {
  const auto read = [](const Json& json) { return *parse_google_benchmark(json, "file"); };
  Json old_list = benchmark("gemv", times(100, 0.1, 9)),
       new_list = benchmark("gemv", times(120, 0.1, 9));
  for (const Json& one : benchmark("gone", {1})) old_list.push_back(one);
  for (const Json& one : benchmark("new", {1})) new_list.push_back(one);
  const BenchmarkTimes base = read(file(old_list)), now = read(file(new_list));
  EXPECT_EQ(not_comparable(base, now), "");
  const Speed speed = compare_benchmarks(base, now);
  EXPECT_THAT(speed.regressions, SizeIs(1));
  EXPECT_THAT(speed.alone, testing::ElementsAre("gone", "new"));
  EXPECT_THAT(not_comparable(base, read(file(new_list, "b"))), HasSubstr("host_name differs"));
}

}  // namespace
}  // namespace assay::harness
