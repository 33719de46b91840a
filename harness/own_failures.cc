#include "harness/own_failures.h"

#include <fmt/format.h>

#include <set>
#include <string>

namespace assay::harness {
namespace {

// "gate arithmetic: thinking is accurate", "golden bf16", "the sampler's check".
std::set<std::string> failures_of(const Json& run) {
  std::set<std::string> out;
  const Json verdict = run.value("verdict", Json::object());
  for (const Json& gate : verdict.value("gates", Json::array()))
    if (gate.value("state", "") == "fail")
      out.insert(fmt::format("gate {}: {}", gate.value("suite", ""), gate.value("name", "")));
  for (const Json& golden : run.value("goldens", Json::array()))
    if (golden.value("state", "") == "diverged")
      out.insert(fmt::format("golden {}", golden.value("name", "")));
  if (!verdict.value("sampler", Json::object()).value("holds", true))
    out.insert("the sampler's check");
  return out;
}

bool is_invalid_by_itself(const Json& run) {
  return run.value("verdict", Json::object()).value("state", "") == "invalid" &&
         !run.contains("comparison");
}

std::string summary_of(const Json& run) {
  return run.value("verdict", Json::object()).value("summary", "");
}

}  // namespace

void add_own_failures(Verdict& verdict, const Json& base_run, const Json& candidate_run) {
  if (is_invalid_by_itself(candidate_run))
    add_finding(verdict, VerdictState::kInvalid,
                "the candidate's own run is invalid: " + summary_of(candidate_run));
  if (is_invalid_by_itself(base_run))
    add_finding(verdict, VerdictState::kInvalid,
                "the base's own run is invalid: " + summary_of(base_run));
  const std::set<std::string> base = failures_of(base_run), now = failures_of(candidate_run);
  int n_both = 0;
  for (const std::string& failure : now) {
    if (base.contains(failure))
      ++n_both;
    else
      add_finding(
          verdict, VerdictState::kRegression,
          fmt::format("{} failed in the candidate's own run and held in the base's", failure));
  }
  if (n_both > 0)
    verdict.summary +=
        fmt::format(" {} of the candidate's own checks failed as they did in the base.", n_both);
}

}  // namespace assay::harness
