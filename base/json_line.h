// Of files with a JSON value a line: `source` names the line already ("texts.jsonl:3"), and a parse
// error adds the column alone.
#pragma once

#include "base/json.h"

namespace assay {

Result<Json> parse_json_line(std::string_view line, std::string_view source);
Result<OrderedJson> parse_ordered_json_line(std::string_view line, std::string_view source);

}  // namespace assay
