// The files of reports/, carried by the binary.
#pragma once

#include <string_view>

namespace assay::harness {

extern const std::string_view kReportHtml, kReportCss, kReportJs;

}  // namespace assay::harness
