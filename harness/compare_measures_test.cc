// Fidelity and speed of two runs.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/compare_fidelity.h"
#include "harness/compare_speed.h"
#include "harness/compare_table.h"

namespace assay::harness {
namespace {

using testing::AllOf;
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

struct Fixture {
  double all = 0.1, ja = 0.1;  // mean KLD …
  double factor = 1;           // … of the typical text, times what the base's run has
  double spread = 0.02;        // of the texts' factors, alternating
  double outlier = 0;          // added to one text
  double bytes = 1e6;
  std::string base = "bf16";
};

// A run that measured 24 texts, every other one Japanese.
Json measured(const Fixture& f = {}) {
  Json result = {
      {"base", {{"fingerprint", f.base}}},
      {"candidate", {{"active_bytes", f.bytes}, {"routed_bytes", 3 * f.bytes}}},
      {"groups",
       {group("all", f.all, 0.004), group("all", 9, 0.1, "thinking"), group("ja", f.ja, 0.004)}},
      {"texts", Json::array()},
      {"noise_floor", group("all", 1e-6, 1e-7)}};
  result["noise_floor"]["groups"] = {group("ja", 2e-6, 1e-7)};
  for (int i = 0; i < 24; ++i) {
    const double base = 0.02 + 0.01 * i, factor = f.factor * (1 + (i % 3 - 1) * f.spread);
    result["texts"].push_back({{"id", fmt::format("t{}", i)},
                               {"lang", i % 2 == 0 ? "ja" : "en"},
                               {"n_positions", 10 + i},
                               {"kld", base * factor + (i == 7 ? f.outlier : 0)}});
  }
  return {
      {"measurements",
       {{{"measure", "divergence"}, {"state", "measured"}, {"hash", "h"}, {"result", result}}}}};
}

TEST(Fidelity, ATypicalTextThatIsFurtherOffIsARegressionOfABuildOfTheSameSize) {
  const Fidelity f = compare_fidelity(measured({.spread = 0}), measured({.factor = 1.4}));
  ASSERT_THAT(f.rows, SizeIs(2)) << "thinking and answers together only";
  EXPECT_EQ(f.reason, "");
  EXPECT_TRUE(f.same_size);
  EXPECT_EQ(f.rows[1].language, "ja");
  EXPECT_EQ(f.rows[1].noise_floor, 2e-6);
  // Of 24 factors 1.372, 1.4, 1.428, in turns: their geometric mean.
  EXPECT_NEAR(f.rows[0].ratio->estimate, 1.3998133, 1e-5);
  EXPECT_LT(f.rows[0].ratio->lo, 1.3998);
  EXPECT_GT(f.rows[0].ratio->hi, 1.3998);
  // Python: b = [0.02 + 0.01 * i ...]; d = [b * (k - 1) ...]; n = [10 + i ...] of 24 texts;
  //   m = sum(n * d) / sum(n); r = [n * (d - m) / sum(n) ...]; (m, sqrt(sum(r ** 2) * 24 / 23))
  EXPECT_NEAR(f.rows[0].difference->value, 0.0632186047, 1e-8);
  EXPECT_NEAR(*f.rows[0].difference->error, 0.0056402813, 1e-8);
  EXPECT_LT(f.rows[0].p, 1e-4);
  EXPECT_EQ(f.rows[0].verdict, RowVerdict::kRegression);
  EXPECT_THAT(f.regressions, Contains(HasSubstr("fidelity in ja: the typical text is 1.40 times")));
  EXPECT_THAT(f.warnings, IsEmpty());
  Verdict verdict;
  verdict.state = VerdictState::kPass;
  add_fidelity(verdict, f);
  EXPECT_EQ(verdict.state, VerdictState::kRegression);
}

TEST(Fidelity, ASmallerBuildIsOnlyWarnedOf) {
  const Fidelity f =
      compare_fidelity(measured({.spread = 0}), measured({.factor = 1.4, .bytes = 0.9e6}));
  EXPECT_FALSE(f.same_size);
  EXPECT_EQ(f.rows[0].verdict, RowVerdict::kWarn);
  EXPECT_THAT(f.warnings, Contains(HasSubstr("not of one size")));
  EXPECT_THAT(f.regressions, IsEmpty());
  EXPECT_TRUE(compare_fidelity(measured({}), measured({.bytes = 1.009e6})).same_size)
      << "another allocation of the same bits";
}

TEST(Fidelity, BelowItsFloorAGrowthWarnsAndBelowATenthItIsNone) {
  const auto of = [](double factor) {
    return compare_fidelity(measured({.spread = 0}), measured({.factor = factor}));
  };
  EXPECT_EQ(of(1.15).rows[0].verdict, RowVerdict::kWarn);
  EXPECT_THAT(of(1.15).regressions, IsEmpty());
  EXPECT_EQ(of(1.07).rows[0].verdict, RowVerdict::kPass) << "sure, and 7 %";
  EXPECT_EQ(of(0.5).rows[0].verdict, RowVerdict::kPass) << "closer to the base";
}

TEST(Fidelity, SaysWhatWouldHaveShownAndWhereNothingCould) {
  const Fidelity same = compare_fidelity(measured({.spread = 0}), measured({}));
  EXPECT_EQ(same.rows[0].verdict, RowVerdict::kPass);
  EXPECT_TRUE(same.rows[0].can_tell);
  EXPECT_EQ(same.rows[0].would_show, kFidelityFloor) << "texts that hardly differ: the floor";
  const Fidelity wide = compare_fidelity(measured({.spread = 0}), measured({.spread = 0.9}));
  EXPECT_GT(*wide.rows[0].would_show, kFidelityFloor);
  // 7 texts of Japanese: 2^-6 is above 0.01 whatever they say, and 24 of all are judged alone.
  Json base = measured({.spread = 0}), candidate = measured({.factor = 3});
  for (Json* run : {&base, &candidate})
    for (std::size_t i = 0; i < 24; ++i)
      (*run)["measurements"][0]["result"]["texts"][i]["lang"] = i < 7 ? "ja" : "en";
  const Fidelity few = compare_fidelity(base, candidate);
  EXPECT_EQ(few.rows[0].verdict, RowVerdict::kRegression);
  EXPECT_EQ(few.rows[0].p, few.rows[0].p_holm);
  EXPECT_FALSE(few.rows[1].can_tell);
  EXPECT_EQ(few.rows[1].verdict, RowVerdict::kPass);
  EXPECT_FALSE(few.rows[1].would_show);
}

TEST(Fidelity, OneTextDecidesNothing) {
  const Fidelity f =
      compare_fidelity(measured({.spread = 0}), measured({.spread = 0.3, .outlier = 40}));
  EXPECT_GT(f.rows[0].difference->value, 0.1);
  EXPECT_EQ(f.rows[0].verdict, RowVerdict::kPass) << "a mean of one position is no drift";
}

TEST(Fidelity, BelowTheNoiseNothingGrows) {
  Json base = measured(), candidate = measured();
  for (Json* run : {&base, &candidate})
    for (Json& text : (*run)["measurements"][0]["result"]["texts"])
      text["kld"] = run == &base ? 0.0 : 1e-8;  // a hundredth of the noise floor
  EXPECT_EQ(compare_fidelity(base, candidate).rows[0].verdict, RowVerdict::kPass);
  for (Json& text : candidate["measurements"][0]["result"]["texts"]) text["kld"] = 1e-3;
  EXPECT_EQ(compare_fidelity(base, candidate).rows[0].verdict, RowVerdict::kRegression)
      << "the base itself, and what was it";
}

TEST(Fidelity, DecidesAloneWhereNothingWasAskedAndStaysDecidedWhereSomethingIsSuspected) {
  const Fidelity worse = compare_fidelity(measured({.spread = 0}), measured({.factor = 1.4})),
                 same = compare_fidelity(measured({}), measured({.spread = 0}));
  const auto verdict_of = [](const Comparison& comparison, const Fidelity& fidelity) {
    Verdict verdict;
    verdict.state = VerdictState::kPass;
    add_comparison(verdict, comparison, fidelity);
    return verdict;
  };
  EXPECT_EQ(verdict_of({}, worse).state, VerdictState::kRegression);
  EXPECT_EQ(verdict_of({}, same).state, VerdictState::kPass);
  EXPECT_THAT(verdict_of({}, same).summary, HasSubstr("typical of 40 texts is 1.00 ["));
  EXPECT_EQ(verdict_of({}, {}).state, VerdictState::kInvalid) << "nothing was compared";
  Comparison suspected;
  suspected.n_pairs = 100;
  suspected.suspicions = {"sums/thinking: fell"};
  EXPECT_EQ(verdict_of(suspected, same).state, VerdictState::kInvalid);
  EXPECT_EQ(verdict_of(suspected, worse).state, VerdictState::kRegression);
}

TEST(Fidelity, SaysWhyItDoesNotJudge) {
  const Json some = measured(), none = Json::object();
  EXPECT_THAT(compare_fidelity(none, none).rows, IsEmpty());
  const Fidelity one = compare_fidelity(none, some);
  EXPECT_THAT(one.reason, HasSubstr("the baseline has no divergence"));
  ASSERT_THAT(one.rows, SizeIs(2));
  EXPECT_FALSE(one.rows[0].base);
  EXPECT_EQ(one.rows[0].candidate->value, 0.1);
  EXPECT_FALSE(one.rows[0].difference);
  EXPECT_THAT(compare_fidelity(some, measured({.base = "other"})).reason, HasSubstr("bases"));
  Json suite = some, texts = some, captured = some;
  suite["measurements"][0]["hash"] = "i";
  EXPECT_THAT(compare_fidelity(some, suite).reason, HasSubstr("suites differ"));
  texts["measurements"][0]["result"]["texts"][3]["n_positions"] = 80;
  EXPECT_THAT(compare_fidelity(some, texts).reason, HasSubstr("different texts"));
  texts["measurements"][0]["result"].erase("texts");
  EXPECT_THAT(compare_fidelity(some, texts).reason,
              HasSubstr("candidate was measured by an earlier"));
  captured["measurements"][0]["result"]["groups"][0]["kld_coarsening"] = nullptr;
  EXPECT_THAT(compare_fidelity(some, captured).reason, HasSubstr("lower bound"));
}

// The quickstart's recipe: the candidate is measured against the model of the baseline's own run.
TEST(Fidelity, ABaselineThatIsTheBaseItselfIsAtNoDistanceAndJudgesNothing) {
  const Json base = {{"identity", {{"model", "bf16"}}}};
  const Fidelity f = compare_fidelity(base, measured());
  EXPECT_THAT(f.reason, HasSubstr("the baseline is the base itself, whose distance is 0"));
  ASSERT_THAT(f.rows, SizeIs(2));
  for (const FidelityRow& row : f.rows) {
    EXPECT_EQ(row.base->value, 0);
    EXPECT_EQ(row.candidate->value, 0.1);
    EXPECT_EQ(row.verdict, RowVerdict::kPass);
    EXPECT_FALSE(row.ratio || row.can_tell);
  }
  EXPECT_THAT(compare_fidelity(base, measured({.base = "other"})).reason,
              HasSubstr("the baseline has no divergence"));
}

std::vector<double> times(double from, double step, int n) {
  std::vector<double> out;
  for (int i = 0; i < n; ++i) out.push_back(from + step * ((i * 7) % n));
  return out;
}

TEST(Speed, ASureSlowdownBeyondItsFloorIsARegression) {
  // Medians 104 and 114; half of the base's logarithms are within log(104 / 102) of their median,
  // 1.4826 times which is the spread: the floor is three times that, as a factor.
  const SpeedRow row = speed_row("gemv", "ns", times(100, 1, 9), times(110, 1, 9), Better::kLess);
  EXPECT_NEAR(row.slower.estimate, 10.0 / 104, 1e-12) << "the median of the ratios is 114 / 104";
  EXPECT_NEAR(row.floor, std::expm1(3 * 1.4826 * std::log(104.0 / 102)), 1e-12);
  EXPECT_TRUE(row.conclusive);
  const Speed speed = judge_speed({row}, "--repetitions");
  EXPECT_EQ(speed.rows[0].verdict, RowVerdict::kRegression);
  EXPECT_THAT(speed.regressions, Contains(HasSubstr("gemv: slower by 9.6 %")));
  EXPECT_THAT(
      judge_speed({speed_row("gemv", "ns", times(110, 1, 9), times(100, 1, 9), Better::kLess)},
                  "--repetitions")
          .regressions,
      IsEmpty())
      << "faster";
}

TEST(Speed, ForRatesLessIsSlower) {
  const auto fast = times(100, 0.1, 9), slow = times(95, 0.1, 9);
  EXPECT_THAT(
      judge_speed({speed_row("decode", "tokens/s", fast, slow, Better::kMore)}, "--repetitions")
          .regressions,
      SizeIs(1));
  EXPECT_THAT(
      judge_speed({speed_row("decode", "tokens/s", slow, fast, Better::kMore)}, "--repetitions")
          .regressions,
      IsEmpty());
}

// Differences of times as a share of the base's median would be "−56 % [−826, −55]" here.
TEST(Speed, NothingIsFasterByMoreThanAllOfItsTime) {
  const std::vector<double> base = {100, 101, 102, 103, 104, 900, 901, 902, 903},
                            now = times(44, 0.1, 9);
  const Interval slower = speed_row("gemv", "ns", base, now, Better::kLess).slower;
  EXPECT_NEAR(slower.estimate, 44.4 / 104 - 1, 0.005);
  EXPECT_NEAR(slower.lo, 44.4 / 902 - 1, 0.005);
  EXPECT_LT(slower.hi, -0.5);
  std::vector<double> base_rates, rates;
  for (const double t : base) base_rates.push_back(1e9 / t);
  for (const double t : now) rates.push_back(1e9 / t);
  const SpeedRow row = speed_row("decode", "tokens/s", base_rates, rates, Better::kMore);
  EXPECT_NEAR(row.slower.estimate, slower.estimate, 1e-12) << "a rate is judged by its time";
  EXPECT_NEAR(row.slower.lo, slower.lo, 1e-12);
}

TEST(Speed, ATimeOfZeroIsInconclusive) {
  const std::vector<double> zero(9, 0.0), some = times(100, 1, 9);
  for (const auto& [base, now] : {std::pair{zero, some}, {some, zero}, {zero, zero}}) {
    const SpeedRow row = speed_row("a", "ns", base, now, Better::kLess);
    const Speed speed = judge_speed({row, row}, "--n");
    EXPECT_THAT(speed.inconclusive, ElementsAre(HasSubstr("a, a: a time that is not above 0")));
    EXPECT_THAT(render_speed(to_json(speed), "in turns", false),
                AllOf(HasSubstr("no time"), Not(HasSubstr("too few")), Not(HasSubstr("0.0 %"))));
    EXPECT_TRUE(speed.regressions.empty());
    EXPECT_EQ(to_json(speed).dump().find("null"), std::string::npos);
  }
}

// Held against its own noise, a rate is what its times are.
TEST(Speed, ARatesFloorIsThatOfItsTimes) {
  const std::vector<double> rates = {70, 80, 85, 95, 100, 105, 115, 120, 130};
  std::vector<double> slow, of_one, of_slow;
  for (const double r : rates) slow.push_back(0.55 * r), of_one.push_back(1e9 / r);
  for (const double r : slow) of_slow.push_back(1e9 / r);
  const SpeedRow rate = speed_row("r", "tokens/s", rates, slow, Better::kMore),
                 time = speed_row("t", "ns", of_one, of_slow, Better::kLess);
  EXPECT_NEAR(rate.floor, time.floor, 1e-9);
  EXPECT_NEAR(rate.slower.estimate, time.slower.estimate, 1e-9);
  EXPECT_NEAR(rate.p, time.p, 1e-12);
}

TEST(Speed, BelowTwoPercentIsNoSlowdownAndWithinTheSpreadAWarning) {
  EXPECT_EQ(judge_speed(
                {speed_row("a", "ns", times(100, 0.01, 12), times(101.5, 0.01, 12), Better::kLess)},
                "--repetitions")
                .rows[0]
                .verdict,
            RowVerdict::kPass);
  // All of one side above all of the other, by less than three spreads.
  EXPECT_EQ(judge_speed({speed_row("a", "ns", times(100, 1, 9), times(110, 1, 9), Better::kLess)},
                        "--repetitions")
                .rows[0]
                .verdict,
            RowVerdict::kRegression);
  EXPECT_EQ(judge_speed({speed_row("a", "ns", times(100, 2, 9), times(117, 2, 9), Better::kLess)},
                        "--repetitions")
                .rows[0]
                .verdict,
            RowVerdict::kWarn);
}

TEST(Speed, FewRepetitionsDecideNothingAndCostNothing) {
  const SpeedRow few = speed_row("few", "ns", times(1, 0.1, 8), times(100, 0.1, 9), Better::kLess);
  const SpeedRow good =
      speed_row("good", "ns", times(100, 0.1, 9), times(110, 0.1, 9), Better::kLess);
  const Speed speed = judge_speed({few, good}, "--repetitions");
  EXPECT_THAT(speed.inconclusive,
              Contains(AllOf(HasSubstr("few: 8 and 9 repetitions"), HasSubstr("--repetitions=9"))));
  EXPECT_THAT(speed.regressions, SizeIs(1));
  EXPECT_EQ(speed.rows[1].p, speed.rows[1].p_holm);
  EXPECT_FALSE(speed_row("none", "ns", {}, {}, Better::kLess).conclusive);
  const std::vector<SpeedRow> many(200, few);
  EXPECT_THAT(judge_speed(many, "--repetitions").inconclusive, SizeIs(1)) << "a line for all alike";
}

TEST(Speed, WhatIsTwiceAsSlowIsSaidAsARatio) {
  EXPECT_EQ(slowdown_text(0.0957), "9.6 %");
  EXPECT_EQ(slowdown_text(0.9949), "99.5 %");
  EXPECT_EQ(slowdown_text(1), "× 2.00");
  EXPECT_EQ(slowdown_text(11.3), "× 12.3");
  const SpeedRow row =
      speed_row("gemv", "ns", times(100, 0.1, 9), times(1230, 0.1, 9), Better::kLess);
  EXPECT_THAT(judge_speed({row}, "--repetitions").regressions,
              Contains(HasSubstr("gemv: slower by × 12.3 (from 100.4 ns to 1.23 µs")));
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
              HasSubstr("failed: a (no AVX-512)"));
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

TEST(Speed, WhatIsTooNoisyToTellIsSaid) {
  const auto judged = [](double spread) {
    return judge_speed(
        {speed_row("gemv", "ns", times(100, spread, 9), times(101, spread, 9), Better::kLess),
         speed_row("quiet", "ns", times(100, 0.1, 9), times(100, 0.1, 9), Better::kLess)},
        "--repetitions");
  };
  const auto shown = [](const Speed& speed) {
    return render_speed(to_json(speed), "in turns", false);
  };
  EXPECT_THAT(shown(judged(0.5)), Not(HasSubstr("noisy")));
  const Speed loud = judged(20);
  ASSERT_GT(loud.rows[0].floor, kLoudFloor);
  EXPECT_THAT(shown(loud), HasSubstr("noisy: no slowdown below 20 % would have been called in 1 "
                                     "row (in gemv none below " +
                                     slowdown_text(loud.rows[0].floor)));
}

}  // namespace
}  // namespace assay::harness
