// A run's folder, read back whole.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/sample.h"

namespace assay::harness {

struct RunFolder {
  std::string folder;           // as given
  Json run;                     // run.json
  std::vector<Sample> samples;  // of samples.jsonl, with their steps; in the order of the file
};
// A torn last line or frame is left out, as a resumed run would.
Result<RunFolder> read_run(const std::string& folder);

}  // namespace assay::harness
