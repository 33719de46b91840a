// What two runs found of themselves, carried into their comparison: a candidate whose own hard
// gates failed is not as good as its base, whatever the pairs say.
#pragma once

#include "base/json.h"
#include "harness/verdict.h"

namespace assay::harness {

// Both run.json. A gate, a golden or the sampler's check that failed in the candidate and not in
// the base is a regression; what failed in both is said. A candidate that was invalid by itself
// (not for its own --baseline) makes the comparison invalid.
void add_own_failures(Verdict& verdict, const Json& base_run, const Json& candidate_run);

}  // namespace assay::harness
