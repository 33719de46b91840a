// summary.md: the run on a page of continuous integration, in GitHub's Markdown. Short: what
// decides, what changed, and where the rest is.
#pragma once

#include <string>

#include "base/json.h"

namespace assay::harness {

// `run` is run.json of a complete run, `folder` where it lies. Pure.
std::string render_summary(const Json& run, const std::string& folder);

}  // namespace assay::harness
