// What a run's terminal and its summary.md say alike at the end.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace assay::harness {

// Of one of run.json's "goldens": "golden base: all 6 replies are computed as before (…)".
std::string golden_line(const Json& check);

// What an accuracy of run.json's "metrics" is of: "80", or "20 of 80" where not every answer is
// judged.
std::string judged_text(const Json& group);

// The command that made a run (its words quoted as a shell reads them) without its --out: pasted as
// it was it would fail, since the folder is there. Without one a run makes its own.
std::string command_again(std::string_view command);

}  // namespace assay::harness
