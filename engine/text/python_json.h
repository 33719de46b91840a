// JSON as Python writes it: what jinja's tojson(ensure_ascii=False) gives in transformers' chat
// templates.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::text {

// json.dumps(value, ensure_ascii=False): ", " and ": " between, keys in their order, floats as
// Python's repr.
std::string python_json(const OrderedJson& value);

// str(value) as jinja prints it: a string as it is, True, None, 1.0.
std::string python_str(const OrderedJson& value);

// str.strip(): without Unicode white space at both ends.
std::string python_strip(const std::string& utf8);

}  // namespace assay::text
