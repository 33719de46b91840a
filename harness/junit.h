// junit.xml: the run for pages that show tests (GitHub's actions, GitLab, Jenkins). One test case
// per sample, gate and row of the comparison; docs/formats/run-record.md says which of them fail.
// Nothing is red in a run that passed, and something is in every other.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "harness/sample.h"

namespace assay::harness {

// `run` is run.json of a complete run, `samples` are in plan order. Pure.
std::string render_junit(const Json& run, const std::vector<Sample>& samples);

}  // namespace assay::harness
