// Suites by name.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "harness/measure_suite.h"
#include "harness/suite.h"

namespace assay::harness {

struct SkippedSuite {
  std::string name, reason;
};

struct FoundSuites {
  std::vector<Suite> suites;
  std::vector<MeasureSuite> measures;
  std::vector<SkippedSuite> skipped;  // of "all": what cannot be asked here, and why
};

// Suites by name in `suites_folder`, "all" for every one of them, or a path to a suite's folder. A
// suite that is named itself and lacks its files is an error; "all" goes on without it.
Result<FoundSuites> find_suites(std::span<const std::string> names, const fs::path& suites_folder,
                                const SuiteInputs& inputs = {});

}  // namespace assay::harness
