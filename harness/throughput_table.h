// A throughput result (harness/throughput.h) for a terminal.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

// Decode by depth and batch, prefill by prompt length, and how much of it was useful.
std::string render_throughput(const Json& result, bool colour);

}  // namespace assay::harness
