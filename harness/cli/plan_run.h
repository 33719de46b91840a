// From the options of a run to what it asks and measures.
#pragma once

#include <vector>

#include "base/result.h"
#include "harness/cli/run_options.h"
#include "harness/find_suites.h"
#include "harness/plan.h"

namespace assay::cli {

struct PlannedRun {
  harness::Plan plan;
  harness::Plan golden_plan;  // the same with the suites' own samplers, as goldens were made
  std::vector<harness::MeasureSuite> measures;
  std::vector<harness::SkippedSuite> skipped;  // of "all", and why
};

// "all" means all that can be asked here: not what has no such profile, unless it is named itself.
Result<PlannedRun> plan_run(const RunOptions& options);

}  // namespace assay::cli
