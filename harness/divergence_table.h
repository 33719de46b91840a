// A divergence result (harness/divergence_result.h) for a terminal.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

// One sentence without its full stop, of what harness/cli/calibration_overlap.h found.
std::string calibration_warning(const Json& calibration);

// Figures by language and part, where the two are furthest apart, and what the figures rest on.
std::string render_divergence(const Json& result, bool colour);

}  // namespace assay::harness
