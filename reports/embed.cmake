cmake_minimum_required(VERSION 3.25)
# Writes the report's page into a C++ file, so that the binary carries it: -DOUTPUT=x.cc -DFOLDER=reports
file(WRITE ${OUTPUT}.new "// Generated from reports/ by embed.cmake.\n#include \"harness/report_page.h\"\n\nnamespace assay::harness {\n")
foreach(part kReportHtml:report.html.in kReportCss:report.css kReportJs:report.js kReportComparisonJs:report_comparison.js
    kReportMeasurementsJs:report_measurements.js)
  string(REPLACE ":" ";" part "${part}")
  list(GET part 0 name)
  list(GET part 1 file)
  file(READ ${FOLDER}/${file} text)
  file(APPEND ${OUTPUT}.new "const std::string_view ${name} = R\"assay_page(${text})assay_page\";\n")
endforeach()
file(APPEND ${OUTPUT}.new "}  // namespace assay::harness\n")
file(RENAME ${OUTPUT}.new ${OUTPUT})
