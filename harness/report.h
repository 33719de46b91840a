// report.html: one page that opens from file:// and makes no request. The data is injected as JSON
// that cannot end its script element, and drawn by the page's own script through textContent: what
// a model wrote is never markup.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "harness/sample.h"

namespace assay::harness {

// `run` is run.json of a complete run, `samples` are in plan order.
std::string render_report(const Json& run, const std::vector<Sample>& samples);

// JSON for a <script> element: "<" and the line separators U+2028 and U+2029 are written as
// escapes, so that neither
// "</script" nor "<!--" can occur; what is not valid UTF-8 is replaced.
std::string script_safe_json(const Json& json);

}  // namespace assay::harness
