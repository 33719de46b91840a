// The suites of a run that measure instead of asking.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "harness/cli/run_options.h"
#include "harness/measure_suite.h"
#include "harness/sample.h"

namespace assay::cli {

// Before anything is asked: a --base that is not there, or that no suite of the run compares with,
// is an error.
Result<void> check_base(const std::vector<harness::MeasureSuite>& suites,
                        const RunOptions& options);

// One after the other, after the cases. A suite that lacks what it needs (a base, a profile) is on
// record as not measured, with the reason; so is one that fails. None: interrupted.
Result<std::optional<std::vector<harness::Measurement>>> measure(
    const std::vector<harness::MeasureSuite>& suites, const RunOptions& options,
    harness::Profile profile, const engine::Engine& engine,
    std::span<const harness::Sample> samples, const std::function<bool()>& interrupted);

}  // namespace assay::cli
