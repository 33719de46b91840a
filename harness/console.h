// What a run prints at its end: tables for eyes, from run.json. Pure: text out.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

struct ConsoleStyle {
  bool colour = false;
  std::string report_path;      // where report.html lies; empty: not mentioned
  std::string compare_command;  // of this run with its baseline; empty: there is none
};

// Accuracy per arm and language, gates, outcomes, and the verdict last, where the eye is.
std::string render_console(const Json& run, const ConsoleStyle& style);

}  // namespace assay::harness
