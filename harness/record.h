// A run's folder: run.json says what was run and what came of it, samples.jsonl gets one line per
// sample, written and fsync'ed as it finishes. Killing the process at any moment loses at most the
// samples in flight.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/sample.h"

namespace assay::harness {

// reports/run.schema.json. Format 1 knew neither repeats nor detectors; it is still read.
inline constexpr int kRecordFormat = 2, kOldestFormat = 1;
inline constexpr const char *kRunFile = "run.json", *kSamplesFile = "samples.jsonl",
                            *kStepsFile = "steps.bin";

// What only some runs have; empty ones are left out.
struct RunExtras {
  Json comparison;   // with a baseline
  Json needle_grid;  // with needles
  Json goldens = Json::array();
  std::string golden_note;  // why the model is held to none
  Json measurements = Json::array();
  Json skipped = Json::array();  // suites of "all" that could not be asked here, and why
};

class RunRecord {
 public:
  // `head` holds "options", "plan", "identity" and "provenance" of run.json. A folder that is there
  // and not empty is an error: a finished run is never written over.
  static Result<RunRecord> create(const fs::path& folder, Json head);
  // Opens an interrupted (or finished) run again. "plan" and "identity" of `head` must equal the
  // recorded ones; the message names the first difference. A torn last line is dropped.
  static Result<RunRecord> resume(const fs::path& folder, Json head);

  RunRecord(RunRecord&& other) noexcept;
  RunRecord& operator=(RunRecord&&) = delete;
  ~RunRecord();

  const fs::path& folder() const { return folder_; }
  const std::vector<Sample>& earlier() const { return earlier_; }  // found on resume

  // On disk when it returns. When the disk is full the finished samples stay whole: a half-written
  // line is taken back.
  Result<void> append(const Sample& sample);

  // Writes the complete run.json: head plus "verdict", "metrics", "samples", "timings" and extras.
  Result<Json> finish(const std::vector<Sample>& samples, Json verdict, Json metrics, Json timings,
                      RunExtras extras = {});

 private:
  RunRecord(fs::path folder, Json head) : folder_(std::move(folder)), head_(std::move(head)) {}
  Result<void> open_file(int& fd, const char* file);
  Result<void> open_samples();
  Result<void> append_bytes(int fd, const char* file, std::string_view rest);
  Result<void> write_running();

  fs::path folder_;
  Json head_;
  int fd_ = -1, steps_fd_ = -1;
  std::vector<Sample> earlier_;
};

// Pure: whole lines of samples.jsonl, and how many bytes they take; what follows is a torn line.
struct SampleLines {
  std::vector<Sample> samples;
  std::size_t n_bytes = 0;
};
Result<SampleLines> parse_sample_lines(std::string_view text, std::string_view source);

Result<Json> read_run_json(const fs::path& folder);

}  // namespace assay::harness
