#include "harness/cli/check_prompts.h"

#include <string>
#include <utility>

#include "base/plural.h"
#include "harness/runner.h"

namespace assay::cli {
namespace {

using harness::Plan;
using harness::PlanItem;
using harness::Target;

Result<void> check_context(const Plan& plan, int context, const Target& target) {
  if (context == 0 || target.max_positions() < context) return {};  // the model's own positions
  std::size_t longest = 0;
  int n_prompts = 0, n_too_long = 0;
  std::string key;
  for (const PlanItem& item : plan.items) {
    if (!plan.case_of(item).recipe.is_null()) continue;
    const auto prompt = harness::prompt_of(plan, item, target);
    if (!prompt) continue;  // for another reason, which its sample will have
    ++n_prompts;
    n_too_long += std::cmp_greater_equal(prompt->ids.size(), context);
    if (prompt->ids.size() <= longest) continue;
    longest = prompt->ids.size();
    key = plan.key_of(item);
  }
  if (n_too_long == 0) return {};
  return fail(
      "--context {}: {} of {} no room for a reply; the longest, of {}, has {}. Give it {} and what "
      "replies take, or leave --context out.",
      context, n_too_long,
      n_prompts == 1 ? "1 prompt leaves" : fmt::format("{} prompts leave", n_prompts), key,
      counted(longest, "token"), longest);
}

Result<void> check_haystack(const Plan& plan, const std::string& written, const Target& target) {
  const std::string language = written.substr(0, written.find('='));
  const PlanItem* longest = nullptr;
  int n_tokens = 0;
  for (const PlanItem& item : plan.items) {
    const Json& recipe = plan.case_of(item).recipe;
    if (recipe.is_null() || recipe.at("haystack_language") != language) continue;
    const int n = recipe.at("n_tokens").get<int>();
    if (longest != nullptr && n <= n_tokens) continue;
    longest = &item;
    n_tokens = n;
  }
  if (longest == nullptr) return {};
  if (const auto prompt = harness::prompt_of(plan, *longest, target); !prompt)
    return fail("--haystack {}: {}: {}", written, plan.key_of(*longest), prompt.error().message);
  return {};
}

}  // namespace

Result<void> check_prompts(const Plan& plan, const RunOptions& options, const Target& target) {
  ASSAY_TRY_VOID(check_context(plan, options.context, target));
  for (const std::string& written : options.haystacks)
    ASSAY_TRY_VOID(check_haystack(plan, written, target));
  return {};
}

}  // namespace assay::cli
