// Whether one build is slower than another, by repetitions that were clocked in turns, or by two
// files of Google Benchmark. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/compare.h"
#include "harness/throughput.h"

namespace assay::harness {

// Fewer repetitions on either side decide nothing: the exact test of 9 against 9 can reach 4e-5.
inline constexpr int kLeastRepetitions = 9;
// The smallest slowdown that is a regression, and how many times the spread it must reach.
inline constexpr double kSpeedFloor = 0.02, kSpreads = 3;
// A row whose floor is that high can tell little, and is named.
inline constexpr double kLoudFloor = 0.2;

struct SpeedRow {
  std::string name;                 // "decode at depth 0, batch 1"; a benchmark's name
  std::string unit;                 // "tokens/s" (more is better), "ns" (less is)
  int n_base = 0, n_candidate = 0;  // repetitions
  double base = 0, candidate = 0;   // medians
  // Slower by this share of the base's time (of a rate, the time that one takes): Hodges–Lehmann's
  // shift of the times' logarithms, less 1 as a factor, with its 95 % interval; negative: faster,
  // and never by all of the time.
  Interval slower = {0, 0, 0};
  // max(kSpeedFloor, kSpreads times the scaled MAD of the noisier side's logarithms, as a factor)
  double floor = kSpeedFloor;
  double p = 1, p_holm = 1;  // Mann–Whitney, exact where there are no ties
  bool conclusive = false;   // repetitions enough on both sides, and
  bool has_times = true;     // all of them above 0
  RowVerdict verdict = RowVerdict::kPass;
};

struct Speed {
  std::vector<SpeedRow> rows;
  std::vector<std::string> regressions, warnings, inconclusive;  // one sentence each
  std::vector<std::string> alone;  // benchmarks that only one file has
};

enum class Better { kMore, kLess };
SpeedRow speed_row(std::string name, std::string unit, std::span<const double> base,
                   std::span<const double> candidate, Better better);
// Rows of so few repetitions that no slowdown could be one beside so many others are inconclusive.
// A row is a regression if Holm's adjusted p is below kAlpha and the slowdown reaches its floor; it
// warns if p is below kAlpha and the slowdown reaches kSpeedFloor, though not both. `flag` is what
// whoever has too few repetitions gets more by.
Speed judge_speed(std::vector<SpeedRow> rows, std::string_view flag);

// From twice the time on (of a rate, from half) a ratio is read sooner than a percentage.
inline constexpr double kRatioFrom = 1;
// A median as people read it: "11.63 µs" of 11,630 ns, "1858 tokens/s".
std::string speed_text(double value, const std::string& unit);
// A slowdown that is a share of the base's time: "20.0 %", "× 12.3".
std::string slowdown_text(double slower);

// Of two results that were clocked in turns (harness/throughput_run.h): rows that both have.
Speed compare_throughput(const ThroughputResult& base, const ThroughputResult& candidate);

// What Google Benchmark writes with --benchmark_out=FILE: the real time of every repetition.
// `context` has of assay-kernels, where there is a GPU, "gpu" (its name) and "gpu_copy_GB_per_s".
struct BenchmarkTimes {
  Json context;
  std::vector<std::pair<std::string, std::vector<double>>> ns;  // by name, in the file's order
};
Result<BenchmarkTimes> parse_google_benchmark(const Json& json, std::string_view source);
// Why two files cannot be compared: another machine or GPU, or a debug build. Empty: they can.
std::string not_comparable(const BenchmarkTimes& base, const BenchmarkTimes& candidate);
Speed compare_benchmarks(const BenchmarkTimes& base, const BenchmarkTimes& candidate);

Json to_json(const Speed& speed);

}  // namespace assay::harness
