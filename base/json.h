// nlohmann/json with our errors: a parse error names the source, line and column.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"

namespace assay {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the file's key order (chat templates need it)

Result<Json> parse_json(std::string_view text, std::string_view source);
Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view source);
// The path ("rope_parameters.rope_theta") of the first key that an object has twice, of which the
// parsers keep the last without a word; "": there is none. Of text that has been parsed.
std::string repeated_key(std::string_view text);
Result<Json> read_json(const fs::path& path);  // unpacked if it is a gzip file

}  // namespace assay
