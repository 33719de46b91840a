// What a run prints at its end: tables for eyes, from run.json. Pure: text out.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace assay::harness {

// Cells that a terminal gives to the text: 2 for East Asian wide characters, 0 for combining marks.
int display_width(std::string_view utf8);

struct ConsoleStyle {
  bool colour = false;
  std::string report_path;  // where report.html lies; empty: not mentioned
};

// Accuracy per arm and language, gates, outcomes, and the verdict last, where the eye is.
std::string render_console(const Json& run, const ConsoleStyle& style);

}  // namespace assay::harness
