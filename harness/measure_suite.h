// Any suite that measures, from its folder, and any measurement for a terminal.
#pragma once

#include <string>
#include <variant>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "harness/divergence_suite.h"
#include "harness/throughput.h"

namespace assay::harness {

using MeasureSuite = std::variant<ThroughputSuite, DivergenceSuite>;

// `folder` has a suite.json with "measure" (measure_of). An unknown measure is an error.
Result<MeasureSuite> load_measure_suite(const fs::path& folder);

const MeasureHead& head_of(const MeasureSuite& suite);
bool supports(const MeasureSuite& suite, Profile profile);

// run.json's "measurements"; nothing for an empty list.
std::string render_measurements(const Json& measurements, bool colour);

}  // namespace assay::harness
