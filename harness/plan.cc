#include "harness/plan.h"

#include <algorithm>

#include "base/suggest.h"

namespace assay::harness {
namespace {

bool has(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

Result<void> require_known(std::string_view what, const std::vector<std::string>& asked,
                           const std::vector<std::string>& known) {
  for (const std::string& name : asked)
    if (!has(known, name)) return fail("unknown {} '{}'.{}", what, name, suggestion(name, known));
  return {};
}

Sampling overridden(Sampling sampling, const PlanOptions& options) {
  if (options.temperature) sampling.temperature = *options.temperature;
  if (options.top_p) sampling.top_p = options.top_p;
  if (options.top_k) sampling.top_k = options.top_k;
  if (options.min_p) sampling.min_p = options.min_p;
  if (options.repetition_penalty) sampling.repetition_penalty = options.repetition_penalty;
  return sampling;
}

std::vector<int> items_by_suite(const Plan& plan) {
  std::vector<int> n(plan.suites.size());
  for (const PlanItem& item : plan.items) ++n[static_cast<std::size_t>(item.suite)];
  return n;
}

// `limit` items, as many of each suite as of any other that has as many; of each its first.
void keep_first_of_each_suite(Plan& plan, int limit) {
  const std::vector<int> n_all = items_by_suite(plan);
  std::vector<int> n_kept(n_all.size());
  for (bool any = true; any && limit > 0;) {
    any = false;
    for (std::size_t s = 0; s < n_all.size() && limit > 0; ++s) {
      if (n_kept[s] == n_all[s]) continue;
      ++n_kept[s];
      --limit;
      any = true;
    }
  }
  std::vector<PlanItem> kept;
  for (const PlanItem& item : plan.items)
    if (n_kept[static_cast<std::size_t>(item.suite)]-- > 0) kept.push_back(item);
  plan.items = std::move(kept);
}

}  // namespace

Result<Plan> make_plan(std::vector<Suite> suites, const PlanOptions& options) {
  std::vector<std::string> languages, arms;
  for (const Suite& suite : suites) {
    if (std::find(suite.profiles.begin(), suite.profiles.end(), options.profile) ==
        suite.profiles.end()) {
      std::vector<std::string> known;
      for (const Profile p : suite.profiles) known.emplace_back(name_of(p));
      return fail("suite '{}' has no profile '{}'.{}", suite.name, name_of(options.profile),
                  suggestion(name_of(options.profile), known));
    }
    for (const std::string& language : suite.languages)
      if (!has(languages, language)) languages.push_back(language);
    for (const Arm& arm : suite.arms)
      if (!has(arms, arm.name)) arms.push_back(arm.name);
  }
  if (!suites.empty()) {
    ASSAY_TRY_VOID(require_known("language", options.languages, languages));
    ASSAY_TRY_VOID(require_known("arm", options.arms, arms));
  }

  Plan plan;
  plan.options = options;
  plan.suites = std::move(suites);
  for (std::size_t s = 0; s < plan.suites.size(); ++s) {
    Suite& suite = plan.suites[s];
    for (Arm& arm : suite.arms) {
      arm.sampling = overridden(arm.sampling.value_or(suite.sampling), options);
      const bool asked =
          arm.profile <= options.profile && (options.arms.empty() || has(options.arms, arm.name));
      if (!options.max_tokens || !asked) continue;
      arm.max_tokens = *options.max_tokens;
      if (arm.force_close && arm.max_thinking_tokens >= arm.max_tokens)
        return fail(
            "--max-tokens {}: arm '{}' of suite '{}' closes thinking at {} tokens and needs room "
            "for an "
            "answer. Raise it, or leave the arm out with --arms.",
            arm.max_tokens, arm.name, suite.name, arm.max_thinking_tokens);
      arm.max_thinking_tokens = std::min(arm.max_thinking_tokens, arm.max_tokens);
    }
    for (std::size_t c = 0; c < suite.cases.size(); ++c) {
      const Case& one = suite.cases[c];
      if (one.profile > options.profile) continue;
      if (!options.languages.empty() && !has(options.languages, one.language)) continue;
      for (std::size_t a = 0; a < suite.arms.size(); ++a) {
        const Arm& arm = suite.arms[a];
        if (arm.profile > options.profile || !arm.asks(one)) continue;
        if (!options.arms.empty() && !has(options.arms, arm.name)) continue;
        for (int r = 1; r <= arm.repeats; ++r)
          plan.items.push_back({static_cast<int>(s), static_cast<int>(a), static_cast<int>(c),
                                arm.repeats == 1 ? 0 : r});
      }
    }
  }
  if (options.limit > 0) keep_first_of_each_suite(plan, options.limit);
  // A run of measures alone asks nothing.
  if (plan.items.empty() && !plan.suites.empty())
    return fail("nothing to ask: no case of profile '{}' is left after --languages and --arms",
                name_of(options.profile));
  return plan;
}

int Plan::leave_out_longer(int max_positions) {
  return static_cast<int>(std::erase_if(items, [&](const PlanItem& item) {
    const Json& recipe = case_of(item).recipe;
    return recipe.is_object() && recipe.at("n_tokens").get<int>() >= max_positions;
  }));
}

std::string Plan::key_of(const PlanItem& item) const {
  return fmt::format("{}/{}/{}{}", suite_of(item).name, arm_of(item).name, case_of(item).id,
                     item.repeat > 0 ? fmt::format("#{}", item.repeat) : "");
}

Json Plan::to_json() const {
  Json json = {{"profile", name_of(options.profile)},
               {"languages", options.languages},
               {"arms", options.arms},
               {"limit", options.limit},
               {"seed", options.seed},
               {"n_items", items.size()}};
  json["suites"] = Json::array();
  const std::vector<int> n_items = items_by_suite(*this);
  for (const Suite& suite : suites) {
    Json arm_list = Json::array();
    for (const Arm& arm : suite.arms)
      arm_list.push_back({{"name", arm.name},
                          {"enable_thinking", arm.enable_thinking},
                          {"max_tokens", arm.max_tokens},
                          {"max_thinking_tokens", arm.max_thinking_tokens},
                          {"force_close", arm.force_close},
                          {"repeats", arm.repeats},
                          {"system", arm.system},
                          {"kinds", arm.kinds},
                          {"profile", name_of(arm.profile)},
                          {"sampling", arm.sampling->to_json()}});
    json["suites"].push_back({{"name", suite.name},
                              {"version", suite.version},
                              {"title", suite.title},
                              {"hash", suite.hash},
                              {"arms", std::move(arm_list)}});
    if (options.limit > 0 && suites.size() > 1)
      json["suites"].back()["n_items"] = n_items[json["suites"].size() - 1];
    // Absent otherwise, so that records from before it was known stay comparable.
    if (suite.floor != kDefaultFloor) json["suites"].back()["floor"] = suite.floor;
  }
  return json;
}

}  // namespace assay::harness
