// What --context and --haystack make impossible, said before anything is asked.
#pragma once

#include "base/result.h"
#include "harness/cli/run_options.h"
#include "harness/plan.h"
#include "harness/target.h"

namespace assay::cli {

// An error where a prompt of the plan leaves no room for a reply in --context, or where a text of
// --haystack cannot be made the longest prompt that hides a needle in it. Generated cases that are
// too long are left out before (Plan::leave_out_longer).
Result<void> check_prompts(const harness::Plan& plan, const RunOptions& options,
                           const harness::Target& target);

}  // namespace assay::cli
