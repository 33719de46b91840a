#include "harness/cli/report_files.h"

#include "harness/junit.h"
#include "harness/record.h"
#include "harness/report.h"
#include "harness/summary_md.h"

namespace assay::cli {

Result<fs::path> write_report_files(const fs::path& folder, const Json& run,
                                    const std::vector<harness::Sample>& samples) {
  fs::path report = folder / "report.html";
  ASSAY_TRY_VOID(write_file_atomic(report, harness::render_report(run, samples)));
  ASSAY_TRY_VOID(write_file_atomic(folder / "junit.xml", harness::render_junit(run, samples)));
  ASSAY_TRY_VOID(
      write_file_atomic(folder / "summary.md", harness::render_summary(run, folder.string())));
  return report;
}

bool has_report_files(const fs::path& folder) {
  std::error_code error;
  const auto run = fs::last_write_time(folder / harness::kRunFile, error);
  for (const char* file : {"report.html", "junit.xml", "summary.md"})
    if (error || fs::last_write_time(folder / file, error) < run) return false;
  return !error;
}

}  // namespace assay::cli
