#include "harness/throughput.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/hash.h"
#include "harness/json_fields.h"
#include "harness/suite.h"

namespace assay::harness {
namespace {

constexpr int kMaxTokens = 1 << 20, kMaxBatch = 1024, kMaxRepetitions = 1000;

// Those that are there; the rest stays as it was.
Result<void> read_settings(const JsonFields& fields, ThroughputSettings& out) {
  if (fields.has("depths")) {
    ASSAY_TRY(out.depths, fields.integers("depths", 0, kMaxTokens));
  }
  if (fields.has("batches")) {
    ASSAY_TRY(out.batches, fields.integers("batches", 1, kMaxBatch));
  }
  if (fields.has("n_decode")) {  // two tokens have one interval between them
    ASSAY_TRY(const long n, fields.integer("n_decode", 2, kMaxTokens));
    out.n_decode = static_cast<int>(n);
  }
  if (fields.has("prefill")) {
    ASSAY_TRY(out.prefill, fields.integers("prefill", 1, kMaxTokens));
  }
  if (fields.has("repetitions")) {
    ASSAY_TRY(const long n, fields.integer("repetitions", 1, kMaxRepetitions));
    out.repetitions = static_cast<int>(n);
  }
  if (out.depths.empty() != out.batches.empty())
    return fail("{}: 'depths' and 'batches' are read together: expected both or neither to be []",
                fields.where());
  if (out.depths.empty() && out.prefill.empty())
    return fail("{}: nothing to measure: 'depths' and 'prefill' are both []", fields.where());
  return {};
}

Json to_json(const MedianInterval& m, std::span<const double> values) {
  return {{"n", values.size()},
          {"median", m.median},
          {"mad", values.size() < 2 ? Json() : Json(scaled_mad(values))},  // one has no spread
          {"lo", m.lo},
          {"hi", m.hi},
          {"coverage", m.coverage},
          {"values", std::vector<double>(values.begin(), values.end())}};
}

Json rates_json(const std::vector<double>& per_s) { return to_json(median_interval(per_s), per_s); }

Json milliseconds(const Percentiles& p) {
  return {{"n", p.n},
          {"p50", 1e3 * p.p50},
          {"p90", 1e3 * p.p90},
          {"p99", 1e3 * p.p99},
          {"max", 1e3 * p.max}};
}

// The clock's own steps are finer than any figure needs: a tenth of a microsecond is kept.
double microseconds(double seconds) { return std::round(1e7 * seconds) / 10; }

Json to_json(const DecodeRow& row) {
  Json out = {{"depth", row.depth},
              {"batch", row.batch},
              {"n_decode", row.n_decode},
              {"reason", row.reason},
              {"n_tokens", 0},
              {"tokens_per_s", nullptr},
              {"itl_ms", nullptr},
              {"intervals_us", Json::array()}};
  if (row.repetitions.empty()) return out;
  std::vector<double> per_s;
  std::size_t n_steps = 0;
  for (const DecodeRepetition& r : row.repetitions) {
    per_s.push_back(decode_per_s(row, r));
    n_steps += r.intervals_s.size();
    Json intervals = Json::array();
    for (const double s : r.intervals_s) intervals.push_back(microseconds(s));
    out["intervals_us"].push_back(std::move(intervals));
  }
  const auto n_sequences =
      static_cast<std::int64_t>(row.batch) * static_cast<std::int64_t>(row.repetitions.size());
  out["n_tokens"] = n_sequences * row.n_decode;
  out["tokens_per_s"] = rates_json(per_s);
  out["itl_ms"] = milliseconds(inter_token_latency(row));
  out["itl_ms"]["n_steps"] = n_steps;
  return out;
}

Json to_json(const PrefillRow& row) {
  Json out = {{"n_prompt", row.n_prompt},
              {"reason", row.reason},
              {"ttft_ms", nullptr},
              {"tokens_per_s", nullptr}};
  if (row.ttft_s.empty()) return out;
  std::vector<double> per_s;
  for (const double s : row.ttft_s) per_s.push_back(row.n_prompt / s);
  out["ttft_ms"] = milliseconds(percentiles(row.ttft_s));
  out["tokens_per_s"] = rates_json(per_s);
  return out;
}

}  // namespace

Json ThroughputSettings::to_json() const {
  return {{"depths", depths},
          {"batches", batches},
          {"n_decode", n_decode},
          {"prefill", prefill},
          {"repetitions", repetitions}};
}

Result<ThroughputSuite> parse_throughput_suite(std::string_view suite_json,
                                               std::string_view source) {
  ASSAY_TRY(const Json json, parse_json(suite_json, source));
  ASSAY_TRY(const auto fields, JsonFields::open(json, std::string(source),
                                                {"format", "name", "version", "title",
                                                 "description", "measure", "profiles", "depths",
                                                 "batches", "n_decode", "prefill", "repetitions"}));
  ThroughputSuite suite;
  ASSAY_TRY(suite.head, parse_measure_head(fields, "throughput"));
  suite.head.hash = hash_hex(suite_json);
  for (const char* key : {"depths", "batches", "n_decode", "prefill", "repetitions"})
    if (!fields.has(key)) return fail("{}: missing key '{}'", source, key);
  ThroughputSettings all;
  ASSAY_TRY_VOID(read_settings(fields, all));
  ASSAY_TRY(const auto profiles, parse_measure_profiles(json, source));
  for (const MeasureProfile& p : profiles) {
    ASSAY_TRY(const auto changes,
              JsonFields::open(p.changes, p.where,
                               {"depths", "batches", "n_decode", "prefill", "repetitions"}));
    ThroughputSettings settings = all;
    ASSAY_TRY_VOID(read_settings(changes, settings));
    suite.profiles.emplace(p.profile, std::move(settings));
  }
  return suite;
}

Percentiles percentiles(std::span<const double> values) {
  if (values.empty()) return {};
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return {static_cast<std::int64_t>(sorted.size()), nearest_rank(sorted, 0.5),
          nearest_rank(sorted, 0.9), nearest_rank(sorted, 0.99), sorted.back()};
}

double decode_per_s(const DecodeRow& row, const DecodeRepetition& repetition) {
  const auto& intervals = repetition.intervals_s;
  CHECK(static_cast<int>(intervals.size()) == row.n_decode - 1)
      << intervals.size() << " intervals of " << row.n_decode << " tokens";
  const double seconds = std::accumulate(intervals.begin(), intervals.end(), 0.0);
  return static_cast<double>(row.batch) * static_cast<double>(intervals.size()) / seconds;
}

Percentiles inter_token_latency(const DecodeRow& row) {
  std::vector<double> steps;
  for (const DecodeRepetition& r : row.repetitions)
    steps.insert(steps.end(), r.intervals_s.begin(), r.intervals_s.end());
  // Each counts `batch` times, which moves no nearest rank: ceil(ceil(q n b) / b) = ceil(q n).
  Percentiles out = percentiles(steps);
  out.n *= row.batch;
  return out;
}

UsefulRate useful_rate(std::span<const Sample> samples) {
  UsefulRate out;
  std::int64_t n_in_decode = 0, n_useful_in_decode = 0;
  for (const Sample& s : samples) {
    if (s.ids.empty()) continue;  // nothing was generated
    const auto n = static_cast<std::int64_t>(s.ids.size());
    const bool answered = s.outcome.termination == Termination::kClosed;
    ++out.n_replies;
    out.n_tokens += n;
    n_in_decode += n - 1;
    out.decode_s += s.decode_s;
    if (!answered) continue;
    ++out.n_answered;
    out.n_useful_tokens += n;
    n_useful_in_decode += n - 1;
  }
  if (out.n_tokens > 0)
    out.share = static_cast<double>(out.n_useful_tokens) / static_cast<double>(out.n_tokens);
  if (out.decode_s > 0) {
    out.tokens_per_s = static_cast<double>(n_in_decode) / out.decode_s;
    out.useful_tokens_per_s = static_cast<double>(n_useful_in_decode) / out.decode_s;
  }
  return out;
}

Json to_json(const UsefulRate& u) {
  const auto or_null = [](const std::optional<double>& x) { return x ? Json(*x) : Json(); };
  return {{"n_replies", u.n_replies},
          {"n_answered", u.n_answered},
          {"n_tokens", u.n_tokens},
          {"n_useful_tokens", u.n_useful_tokens},
          {"share", or_null(u.share)},
          {"decode_s", u.decode_s},
          {"tokens_per_s", or_null(u.tokens_per_s)},
          {"useful_tokens_per_s", or_null(u.useful_tokens_per_s)}};
}

Json to_json(const ThroughputResult& result, const std::optional<UsefulRate>& useful) {
  Json out = {{"engine", result.engine},
              {"settings", result.settings.to_json()},
              {"decode", Json::array()},
              {"prefill", Json::array()},
              {"useful", useful ? to_json(*useful) : Json()}};
  for (const DecodeRow& row : result.decode) out["decode"].push_back(to_json(row));
  for (const PrefillRow& row : result.prefill) out["prefill"].push_back(to_json(row));
  return out;
}

}  // namespace assay::harness
