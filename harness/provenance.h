// Where a number comes from: build, machine, moment, command.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

// `target` is Target::describe(). Looks at the machine and the clock.
Json make_provenance(const std::string& command, Json target);

std::string utc_now();           // "2026-11-23T14:05:07Z"
std::string utc_now_for_path();  // "20261123-140507"

}  // namespace assay::harness
