// cases.csv: what people write and review in a spreadsheet. Columns in any order, found by their
// header.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "harness/suite.h"

namespace assay::harness {

// Every message names the source and the line, what was expected and what was found.
Result<std::vector<Case>> parse_cases(std::string_view csv, std::string_view source,
                                      const std::vector<std::string>& languages, Scoring scoring);

}  // namespace assay::harness
