// One reader over libcsv: RFC 4180 with quotes and line breaks inside fields, UTF-8, a header row.
// Errors name the source and the line on which the row starts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace assay {

struct CsvRow {
  int line;  // 1-based line of the source on which the row starts
  std::vector<std::string> fields;
};

struct CsvTable {
  std::vector<std::string> header;
  std::vector<CsvRow> rows;  // each with header.size() fields
};

// A row with another number of fields than the header, a quote that never closes, or an empty file
// is an error.
Result<CsvTable> parse_csv(std::string_view text, std::string_view source);

}  // namespace assay
