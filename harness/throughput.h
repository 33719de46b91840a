// How fast an engine reads and writes: parameters, what was clocked, and the statistics of it.
// Pure; throughput_run holds the clock. A token is a step's result for one sequence, never a chunk
// of a stream.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/stats.h"
#include "harness/measurement.h"
#include "harness/sample.h"

namespace assay::harness {

struct ThroughputSettings {
  std::vector<int> depths;   // tokens in the cache before the first decoded one; may be empty
  std::vector<int> batches;  // sequences that decode together
  int n_decode = 0;          // tokens of each sequence, at least 2
  std::vector<int> prefill;  // prompt lengths in tokens; may be empty
  int repetitions = 0;
  Json to_json() const;
};

struct ThroughputSuite {
  MeasureHead head;
  std::map<Profile, ThroughputSettings> profiles;  // those that it supports
};
Result<ThroughputSuite> parse_throughput_suite(std::string_view suite_json,
                                               std::string_view source);

// What the clock said of one repetition. Token i of every sequence is there when step i ends;
// intervals[i] is from token i to token i + 1, so n_decode tokens have n_decode − 1 of them. The
// first step, in which the caches of the forked sequences grow, is in no interval.
struct DecodeRepetition {
  std::vector<double> intervals_s;
};
struct DecodeRow {
  int depth = 0, batch = 0, n_decode = 0;
  std::string reason;  // why there is no repetition, such as a depth beyond the model's positions
  std::vector<DecodeRepetition> repetitions;
};
struct PrefillRow {
  int n_prompt = 0;
  std::string reason;
  std::vector<double> ttft_s;  // a repetition each: prompt handed over until its last logits
};

// Percentiles are values that occurred (nearest rank): of n values, p99 is the largest if n < 100.
struct Percentiles {
  std::int64_t n = 0;
  double p50 = 0, p90 = 0, p99 = 0, max = 0;
};
Percentiles percentiles(std::span<const double> values);

// Tokens per second of a repetition: batch · (n_decode − 1) tokens in the sum of its intervals.
double decode_per_s(const DecodeRow& row, const DecodeRepetition& repetition);
// Inter-token latency over all sequences and repetitions: batch · (n_decode − 1) · repetitions
// values. Sequences of a batch share a step, so of these only one in `batch` is an observation.
Percentiles inter_token_latency(const DecodeRow& row);

// Tokens of replies that ended in an answer (thinking closed, the model stopped by itself), right
// or wrong, against all that were generated: a fast model that never finishes is of no use.
struct UsefulRate {
  int n_replies = 0, n_answered = 0;
  std::int64_t n_tokens = 0, n_useful_tokens = 0;
  std::optional<double> share;  // useful tokens of all; none without a token
  // Of a reply's own decode time, from its first token to its last, summed over replies: what one
  // reader sees. A reply of n tokens has n − 1 in that time. None if that time is 0.
  double decode_s = 0;
  std::optional<double> tokens_per_s, useful_tokens_per_s;
};
UsefulRate useful_rate(std::span<const Sample> samples);

struct ThroughputResult {
  Json engine;  // what decides the speed beside the machine: backend, kernel, n_threads …
  ThroughputSettings settings;
  std::vector<DecodeRow> decode;
  std::vector<PrefillRow> prefill;
};
// `useful` is null where no case was asked in the same run.
Json to_json(const ThroughputResult& result, const std::optional<UsefulRate>& useful = {});
Json to_json(const UsefulRate& useful);

}  // namespace assay::harness
