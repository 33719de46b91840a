// The files of reports/, carried by the binary.
#pragma once

#include <string_view>

namespace assay::harness {

extern const std::string_view kReportHtml, kReportCss;
// One script, in this order: the page and its tables, then what report.js calls.
extern const std::string_view kReportJs, kReportComparisonJs, kReportMeasurementsJs;

}  // namespace assay::harness
