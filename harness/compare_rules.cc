#include "harness/compare_rules.h"

#include "harness/plan.h"

namespace assay::harness {
namespace {

// Arms and floors as Plan::to_json writes them.
CompareRules rules_of_plan(const Json& plan) {
  CompareRules rules;
  for (const Json& suite : plan.at("suites")) {
    const auto name = suite.at("name").get<std::string>();
    if (suite.contains("floor")) rules.floors[name] = suite.at("floor").get<double>();
    for (const Json& arm : suite.at("arms"))
      if (arm.at("sampling").at("temperature").get<double>() > 0)
        rules.sampled_arms.insert(name + "/" + arm.at("name").get<std::string>());
  }
  return rules;
}

bool repeats_its_bits(const Json& run) {
  return run.at("provenance").at("target").value("kind", "") == "engine";
}

}  // namespace

CompareRules rules_of(const Plan& plan, bool reproducible) {
  CompareRules rules = rules_of_plan(plan.to_json());
  rules.reproducible = reproducible;
  return rules;
}

CompareRules rules_of(const Json& base_run, const Json& candidate_run) {
  CompareRules rules = rules_of_plan(candidate_run.at("plan"));
  rules.reproducible = repeats_its_bits(base_run) && repeats_its_bits(candidate_run);
  return rules;
}

}  // namespace assay::harness
