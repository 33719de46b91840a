// A divergence result (harness/divergence_result.h) for a terminal.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

// Figures by language and part, where the two are furthest apart, and what the figures rest on.
std::string render_divergence(const Json& result, bool colour);

}  // namespace assay::harness
