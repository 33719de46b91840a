#include "harness/compare_speed.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/figure.h"
#include "base/hypothesis.h"
#include "base/shortened.h"

namespace assay::harness {
namespace {

std::vector<double> per_s(const DecodeRow& row) {
  std::vector<double> out;
  for (const DecodeRepetition& r : row.repetitions) out.push_back(decode_per_s(row, r));
  return out;
}

// Of a rate the time that one takes. All above 0.
std::vector<double> log_times(std::span<const double> values, Better better) {
  std::vector<double> out;
  for (const double value : values)
    out.push_back(better == Better::kLess ? std::log(value) : -std::log(value));
  return out;
}

bool are_times(std::span<const double> values) {
  return std::ranges::all_of(values, [](double v) { return v > 0 && std::isfinite(v); });
}

Result<double> ns_per(const std::string& unit, std::string_view where) {
  for (const auto& [name, ns] : {std::pair{"ns", 1.0}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}})
    if (unit == name) return ns;
  return fail("{}: unknown time_unit \"{}\", expected ns, us, ms or s", where, unit);
}

std::string sentence_of(const SpeedRow& r) {
  return fmt::format("{}: slower by {} (from {} to {}; p = {:.2g} after Holm, floor {})", r.name,
                     slowdown_text(r.slower.estimate), speed_text(r.base, r.unit),
                     speed_text(r.candidate, r.unit), r.p_holm, slowdown_text(r.floor));
}

// The smallest p of Mann–Whitney's test: every repetition of one side below all of the other's.
double least_p(int n, int m) {
  double p = 2;
  for (int i = 1; i <= n; ++i) p *= static_cast<double>(i) / (m + i);
  return p;
}

// Rows of which no slowdown could be a regression beside so many others decide nothing.
void leave_out_undecidable(std::vector<SpeedRow>& rows, std::string_view flag, Speed& out) {
  const auto n_judged = static_cast<double>(
      std::count_if(rows.begin(), rows.end(), [](const SpeedRow& r) { return r.conclusive; }));
  int n_left_out = 0;
  for (SpeedRow& row : rows) {
    if (!row.conclusive || least_p(row.n_base, row.n_candidate) * n_judged < kAlpha) continue;
    row.conclusive = false;
    ++n_left_out;
  }
  int enough = kLeastRepetitions;
  while (least_p(enough, enough) * n_judged >= kAlpha) ++enough;
  if (n_left_out > 0)
    out.inconclusive.push_back(
        fmt::format("{} rows: beside {} others no p of so few repetitions stays below {} after "
                    "Holm; clock both sides with {}={}, or compare fewer rows",
                    n_left_out, n_judged - 1, kAlpha, flag, enough));
}

// The roof that every GPU row of a file was clocked under moved: clocks, or somebody else's work.
void warn_of_another_roof(const BenchmarkTimes& base, const BenchmarkTimes& candidate, Speed& out) {
  constexpr double kSameRoof = 0.05;
  const auto roof = [](const BenchmarkTimes& times) {
    const Json value = times.context.value("gpu_copy_GB_per_s", Json());
    return value.is_string() ? std::strtod(value.get<std::string>().c_str(), nullptr) : 0;
  };
  const double b = roof(base), c = roof(candidate);
  if (b > 0 && c > 0 && std::abs(c / b - 1) > kSameRoof)
    out.warnings.push_back(
        fmt::format("a copy on the GPU moves {:.0f} GB/s now and moved {:.0f}: its clocks changed, "
                    "or it was not idle; clock both in turns",
                    c, b));
}

}  // namespace

SpeedRow speed_row(std::string name, std::string unit, std::span<const double> base,
                   std::span<const double> candidate, Better better) {
  SpeedRow row;
  row.name = std::move(name);
  row.unit = std::move(unit);
  row.n_base = static_cast<int>(base.size());
  row.n_candidate = static_cast<int>(candidate.size());
  row.has_times = are_times(base) && are_times(candidate);
  row.conclusive =
      row.has_times && row.n_base >= kLeastRepetitions && row.n_candidate >= kLeastRepetitions;
  if (base.empty() || candidate.empty()) return row;
  row.base = median(base);
  row.candidate = median(candidate);
  if (!row.has_times) return row;
  // A shift of the logarithms is a factor, so that no interval holds a time below zero.
  const std::vector<double> before = log_times(base, better), now = log_times(candidate, better);
  const RankSum test = mann_whitney(now, before);
  row.p = test.p;
  row.slower = {std::expm1(test.shift.estimate), std::expm1(test.shift.lo),
                std::expm1(test.shift.hi)};
  const double spread = std::max(scaled_mad(before), scaled_mad(now));
  row.floor = std::max(kSpeedFloor, std::expm1(kSpreads * spread));
  return row;
}

std::string speed_text(double value, const std::string& unit) {
  if (unit != "ns") return fmt::format("{:.4g} {}", value, unit);
  for (const auto& [name, ns] : {std::pair{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}})
    if (value >= ns) return fmt::format("{} {}", figure(value / ns, 2, 4), name);
  return fmt::format("{} ns", figure(value, 2, 4));
}

std::string slowdown_text(double slower) {
  return slower >= kRatioFrom ? "× " + figure(1 + slower, 2, 3)
                              : fmt::format("{:.1f} %", 100 * slower);
}

Speed judge_speed(std::vector<SpeedRow> rows, std::string_view flag) {
  Speed out;
  std::map<std::pair<int, int>, std::vector<std::string>> too_few;  // a file's rows are alike
  std::vector<std::string> timeless;
  for (const SpeedRow& row : rows) {
    if (row.conclusive) continue;
    std::vector<std::string>& names =
        row.has_times ? too_few[{row.n_base, row.n_candidate}] : timeless;
    names.push_back(row.name);
  }
  if (!timeless.empty())
    out.inconclusive.push_back(fmt::format(
        "{}: a time that is not above 0, of which nothing is a share", shortened(timeless)));
  for (const auto& [n, names] : too_few)
    out.inconclusive.push_back(fmt::format(
        "{}: {} and {} repetitions, at least {} are needed on both sides: clock both "
        "with {}={}",
        shortened(names), n.first, n.second, kLeastRepetitions, flag, kLeastRepetitions));
  leave_out_undecidable(rows, flag, out);
  std::vector<double> p;
  for (const SpeedRow& row : rows)
    if (row.conclusive) p.push_back(row.p);
  const std::vector<double> adjusted = holm(p);
  std::size_t next = 0;
  for (SpeedRow& row : rows) {
    if (!row.conclusive) continue;
    row.p_holm = adjusted[next++];
    const double slower = row.slower.estimate;
    if (row.p_holm < kAlpha && slower >= row.floor) {
      row.verdict = RowVerdict::kRegression;
      out.regressions.push_back(sentence_of(row));
    } else if (row.p < kAlpha && slower >= kSpeedFloor) {
      row.verdict = RowVerdict::kWarn;
      out.warnings.push_back(sentence_of(row));
    }
  }
  out.rows = std::move(rows);
  return out;
}

Speed compare_throughput(const ThroughputResult& base, const ThroughputResult& candidate) {
  std::vector<SpeedRow> rows;
  for (const DecodeRow& b : base.decode)
    for (const DecodeRow& c : candidate.decode)
      if (b.depth == c.depth && b.batch == c.batch && b.reason.empty() && c.reason.empty())
        rows.push_back(speed_row(fmt::format("decode at depth {}, batch {}", b.depth, b.batch),
                                 "tokens/s", per_s(b), per_s(c), Better::kMore));
  return judge_speed(std::move(rows), "--repetitions");
}

Result<BenchmarkTimes> parse_google_benchmark(const Json& json, std::string_view source) {
  if (!json.is_object() || !json.contains("benchmarks") || !json["benchmarks"].is_array())
    return fail(
        "{}: expected what Google Benchmark writes with --benchmark_out=FILE, found no list "
        "'benchmarks'",
        source);
  BenchmarkTimes out;
  std::vector<std::string> failed;  // a name and a reason, once
  try {
    out.context = json.value("context", Json::object());
    if (!out.context.is_object()) return fail("{}: expected 'context' to be an object", source);
    for (const Json& one : json["benchmarks"]) {
      const auto name = one.at("name").get<std::string>();
      if (one.value("run_type", "iteration") != "iteration") continue;  // a mean of the others
      if (one.value("error_occurred", false)) {
        std::string reason = fmt::format("{} ({})", name, one.value("error_message", ""));
        if (std::find(failed.begin(), failed.end(), reason) == failed.end())
          failed.push_back(std::move(reason));
        continue;
      }
      ASSAY_TRY(const double ns, ns_per(one.value("time_unit", "ns"),
                                        fmt::format("{}: benchmark {}", source, name)));
      auto at = std::find_if(out.ns.begin(), out.ns.end(),
                             [&](const auto& known) { return known.first == name; });
      if (at == out.ns.end()) at = out.ns.insert(out.ns.end(), {name, {}});
      at->second.push_back(ns * one.at("real_time").get<double>());
    }
  } catch (const Json::exception& error) {
    return fail("{}: not what Google Benchmark writes: {}", source, error.what());
  }
  if (!failed.empty())
    return fail("{}: no speed is worth a comparison, these benchmarks failed: {}", source,
                shortened(failed));
  if (out.ns.empty())
    return fail(
        "{}: there is no repetition, only aggregates. Run it with --benchmark_repetitions={} and "
        "without --benchmark_report_aggregates_only",
        source, kLeastRepetitions);
  return out;
}

std::string not_comparable(const BenchmarkTimes& base, const BenchmarkTimes& candidate) {
  for (const char* key : {"host_name", "num_cpus", "library_build_type"}) {
    const Json b = base.context.value(key, Json()), c = candidate.context.value(key, Json());
    if (b != c)
      return fmt::format("{} differs ({} against {}): clock both on one machine, in turns", key,
                         b.dump(), c.dump());
  }
  // A file without a GPU's rows shares no such row with the other.
  const Json b = base.context.value("gpu", Json()), c = candidate.context.value("gpu", Json());
  if (!b.is_null() && !c.is_null() && b != c)
    return fmt::format("gpu differs ({} against {}): clock both on one GPU, in turns", b.dump(),
                       c.dump());
  return "";
}

Speed compare_benchmarks(const BenchmarkTimes& base, const BenchmarkTimes& candidate) {
  std::vector<SpeedRow> rows;
  std::vector<std::string> alone, gone;
  const auto find = [](const BenchmarkTimes& times, const std::string& name) {
    return std::find_if(times.ns.begin(), times.ns.end(),
                        [&](const auto& one) { return one.first == name; });
  };
  for (const auto& [name, times] : base.ns) {
    const auto other = find(candidate, name);
    if (other == candidate.ns.end())
      gone.push_back(name);
    else
      rows.push_back(speed_row(name, "ns", times, other->second, Better::kLess));
  }
  alone = gone;
  for (const auto& [name, times] : candidate.ns)
    if (find(base, name) == base.ns.end()) alone.push_back(name);
  Speed out = judge_speed(std::move(rows), "--benchmark_repetitions");
  out.alone = std::move(alone);
  if (!gone.empty())
    out.warnings.push_back(
        fmt::format("nothing says how fast these are now, they stand in the "
                    "base's file only: {}",
                    shortened(gone)));
  warn_of_another_roof(base, candidate, out);
  return out;
}

Json to_json(const Speed& speed) {
  Json rows = Json::array();
  for (const SpeedRow& r : speed.rows)
    rows.push_back({{"name", r.name},
                    {"unit", r.unit},
                    {"n_base", r.n_base},
                    {"n_candidate", r.n_candidate},
                    {"base", r.base},
                    {"candidate", r.candidate},
                    {"slower", r.slower.estimate},
                    {"lo", r.slower.lo},
                    {"hi", r.slower.hi},
                    {"floor", r.floor},
                    {"p", r.p},
                    {"p_holm", r.p_holm},
                    {"conclusive", r.conclusive},
                    {"has_times", r.has_times},
                    {"verdict", name_of(r.verdict)}});
  return {{"rows", std::move(rows)}, {"alone", speed.alone}};
}

}  // namespace assay::harness
