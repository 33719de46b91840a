#include "harness/cli/plan_run.h"

#include <algorithm>
#include <optional>

namespace assay::cli {

using namespace assay::harness;

namespace {

void leave_out_without_profile(FoundSuites& found, const std::vector<std::string>& names,
                               Profile profile) {
  if (std::find(names.begin(), names.end(), "all") == names.end()) return;
  std::erase_if(found.suites, [&](const Suite& suite) {
    const bool has =
        std::find(suite.profiles.begin(), suite.profiles.end(), profile) != suite.profiles.end();
    const bool named = std::find(names.begin(), names.end(), suite.name) != names.end();
    if (!has && !named)
      found.skipped.push_back({suite.name, fmt::format("has no profile {}", name_of(profile))});
    return !has && !named;
  });
}

}  // namespace

Result<PlannedRun> plan_run(const RunOptions& options) {
  ASSAY_TRY(const SuiteInputs inputs, to_suite_inputs(options));
  ASSAY_TRY(FoundSuites found, find_suites(options.suites, options.suites_folder, inputs));
  ASSAY_TRY(const PlanOptions plan_options, to_plan_options(options));
  leave_out_without_profile(found, options.suites, plan_options.profile);
  if (!inputs.haystacks.empty() &&
      std::none_of(found.suites.begin(), found.suites.end(),
                   [](const Suite& suite) { return suite.needle != nullptr; }))
    return fail("--haystack: no suite of this run hides needles. Ask for 'needle' or 'all'.");
  PlannedRun out;
  PlanOptions own_samplers = plan_options;
  own_samplers.temperature = own_samplers.top_p = own_samplers.min_p =
      own_samplers.repetition_penalty = std::nullopt;
  own_samplers.top_k = own_samplers.max_tokens = std::nullopt;
  ASSAY_TRY(out.golden_plan, make_plan(found.suites, own_samplers));
  ASSAY_TRY(out.plan, make_plan(std::move(found.suites), plan_options));
  out.measures = std::move(found.measures);
  out.skipped = std::move(found.skipped);
  return out;
}

}  // namespace assay::cli
