// What a finished run's folder holds for readers, beside its record.
#pragma once

#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "harness/sample.h"

namespace assay::cli {

// Writes report.html, junit.xml and summary.md of a complete run; returns where the report lies.
Result<fs::path> write_report_files(const fs::path& folder, const Json& run,
                                    const std::vector<harness::Sample>& samples);

// Whether all of them are there, and were written after run.json.
bool has_report_files(const fs::path& folder);

}  // namespace assay::cli
