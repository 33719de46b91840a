// A finished run's folder, read back: run.json, every sample, and what stands beside them in
// steps.bin.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/sample.h"

namespace assay::harness {

struct RunFolder {
  std::string folder;
  Json run;
  std::vector<Sample> samples;

  bool complete() const { return run.value("status", "") == "complete"; }
  // Who it was, for what is written about it elsewhere: folder, identity, commit, hash of samples.
  Json describe() const;
};

// A complete run whose samples.jsonl lacks some of them is an error; an incomplete one is read as
// far as it goes.
Result<RunFolder> read_run(const fs::path& folder);

}  // namespace assay::harness
