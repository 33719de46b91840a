#include "harness/verdict.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "base/plural.h"

namespace assay::harness {
namespace {

// 0.97 of 100 is 97, though 0.97 * 100 is a little less or more in binary.
constexpr double kRounding = 1e-9;

int least_passing(double min, int n) { return static_cast<int>(std::ceil(min * n - kRounding)); }
int most_passing(double max, int n) { return static_cast<int>(std::floor(max * n + kRounding)); }

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string detail_of(const Gate& gate, const GateResult& result) {
  const Rate& r = result.rate;
  const bool bad_is_true = gate.max.has_value();
  const int n_bad = bad_is_true ? r.n_true : r.n - r.n_true;
  const int allowed =
      bad_is_true ? most_passing(*gate.max, r.n) : r.n - least_passing(*gate.min, r.n);
  if (result.state == GateState::kFail)
    return fmt::format("{} of {} failed, {} allowed", n_bad, r.n, allowed);
  std::string detail = fmt::format("{} of {} failed, {} more ({:.1f} points) would fail it", n_bad,
                                   r.n, allowed - n_bad + 1, 100.0 * (allowed - n_bad + 1) / r.n);
  // The smallest effect that this pass could have seen: anything above the bound would also have
  // looked like this.
  if (gate.metric == GateMetric::kAccuracy)
    detail += fmt::format("; plausible down to {}", percent(r.value.lo));
  return detail;
}

GateResult judge_gate(const Suite& suite, const Gate& gate, std::span<const Sample> samples) {
  GateResult result;
  result.suite = suite.name;
  result.name = gate.name;
  result.metric = name_of(gate.metric);
  result.where = gate.where.text();
  result.min = gate.min;
  result.max = gate.max;
  std::vector<const Sample*> selected;
  for (const Sample& s : samples)
    if (s.suite == suite.name && s.gated && gate.where.selects(s.arm, s.language, s.kind))
      selected.push_back(&s);
  result.rate = rate_of(gate.metric, selected);
  const Rate& r = result.rate;
  if (r.n == 0) {
    result.detail = selected.empty() ? "this run's selection leaves it no case"
                                     : "every case that it looks at was an error";
    return result;
  }
  const bool pass = gate.min ? r.n_true >= least_passing(*gate.min, r.n)
                             : r.n_true <= most_passing(*gate.max, r.n);
  result.state = pass ? GateState::kPass : GateState::kFail;
  result.detail = detail_of(gate, result);
  return result;
}

// Valid first: what cannot be concluded from stays so, whatever its rows say. And what is decided
// stays decided, though something else is open.
void worsen(VerdictState& state, VerdictState to) {
  const bool final = state == VerdictState::kInvalid || state == VerdictState::kRegression;
  if (!final && to != VerdictState::kPass) state = to;
}

bool has_error_gate(const Suite& suite) {
  return std::any_of(suite.gates.begin(), suite.gates.end(),
                     [](const Gate& g) { return g.metric == GateMetric::kError; });
}

// Why nothing can be concluded from these samples.
std::vector<std::string> validity_problems(const Plan& plan, std::span<const Sample> samples,
                                           const std::vector<GateResult>& gates) {
  std::vector<std::string> problems;
  std::set<std::string> present;
  for (const Sample& s : samples) present.insert(s.key());
  const auto n_missing = std::count_if(plan.items.begin(), plan.items.end(), [&](const auto& item) {
    return !present.contains(plan.key_of(item));
  });
  if (n_missing > 0)
    problems.push_back(
        fmt::format("{} of {} planned samples are missing", n_missing, plan.items.size()));
  for (const Suite& suite : plan.suites) {
    int n_errors = 0;
    const Sample* first = nullptr;
    for (const Sample& s : samples) {
      if (s.suite != suite.name || s.ran() || s.finish == "non_finite") continue;
      ++n_errors;
      if (first == nullptr) first = &s;
    }
    if (n_errors > 0 && !has_error_gate(suite))
      problems.push_back(
          fmt::format("{} of suite {} could not be asked, none is allowed; the first, {}: {}",
                      counted(n_errors, "sample"), suite.name, first->key(), first->error));
  }
  for (const GateResult& gate : gates) {
    if (gate.metric != name_of(GateMetric::kError) || gate.state != GateState::kFail) continue;
    const auto first = std::find_if(samples.begin(), samples.end(), [&](const Sample& s) {
      return s.suite == gate.suite && !s.ran() && s.finish != "non_finite";
    });
    problems.push_back(fmt::format(
        "gate {}/{}: {}{}", gate.suite, gate.name, gate.detail,
        first == samples.end() ? ""
                               : fmt::format("; the first, {}: {}", first->key(), first->error)));
  }
  if (std::all_of(gates.begin(), gates.end(),
                  [](const GateResult& g) { return g.state == GateState::kNotRun; }))
    problems.push_back("no gate looks at any sample of this run, so nothing was decided");
  return problems;
}

}  // namespace

std::string_view name_of(VerdictState state) {
  switch (state) {
    case VerdictState::kPass:
      return "pass";
    case VerdictState::kWarn:
      return "warn";
    case VerdictState::kRegression:
      return "regression";
    case VerdictState::kInvalid:
      return "invalid";
  }
  return "";
}

int exit_code_of(VerdictState state) {
  return state == VerdictState::kRegression ? 1 : state == VerdictState::kInvalid ? 3 : 0;
}

std::string_view name_of(GateState state) {
  return state == GateState::kPass ? "pass" : state == GateState::kFail ? "fail" : "not_run";
}

void add_regression(Verdict& verdict, std::string sentence) {
  if (verdict.n_regressed++ == 0) verdict.regressed = sentence;
  verdict.problems.push_back(std::move(sentence));
  worsen(verdict.state, VerdictState::kRegression);
}

Verdict judge(const Plan& plan, std::span<const Sample> samples, int n_measured) {
  Verdict verdict;
  if (plan.suites.empty()) {
    verdict.state = n_measured > 0 ? VerdictState::kPass : VerdictState::kInvalid;
    verdict.summary = n_measured > 0 ? fmt::format("{} made; measures have no gate.",
                                                   counted(n_measured, "measurement"))
                                     : "Nothing was measured.";
    return verdict;
  }
  for (const Suite& suite : plan.suites)
    for (const Gate& gate : suite.gates) verdict.gates.push_back(judge_gate(suite, gate, samples));

  verdict.problems = validity_problems(plan, samples, verdict.gates);
  if (!verdict.problems.empty()) {
    verdict.state = VerdictState::kInvalid;
    verdict.summary = "The run is not valid, so it says nothing about the model.";
    return verdict;
  }
  verdict.state = VerdictState::kPass;
  const auto n_non_finite = std::count_if(samples.begin(), samples.end(),
                                          [](const Sample& s) { return s.finish == "non_finite"; });
  if (n_non_finite > 0)
    add_regression(verdict,
                   fmt::format("{} met NaN or Inf in the logits", counted(n_non_finite, "sample")));
  verdict.sampler = check_sampler(samples);
  if (!verdict.sampler.holds())
    add_regression(verdict, "the sampler does not draw what it says: " + verdict.sampler.text());
  int n_passed = 0, n_not_run = 0;
  for (const GateResult& gate : verdict.gates) {
    n_passed += gate.state == GateState::kPass;
    n_not_run += gate.state == GateState::kNotRun;
    if (gate.state == GateState::kFail)
      add_regression(
          verdict, fmt::format("{}/{}: {} {} ({}), limit {} {}", gate.suite, gate.name, gate.metric,
                               percent(gate.rate.value.estimate), gate.detail, gate.min ? "≥" : "≤",
                               percent(gate.min ? *gate.min : *gate.max)));
  }
  const std::string not_run = n_not_run == 0 ? ""
                                             : fmt::format(" {} had no case in this selection.",
                                                           counted(n_not_run, "gate"));
  if (verdict.problems.empty()) {
    verdict.summary =
        fmt::format("{} passed over {}.{}",
                    n_passed == 1 ? "The one gate" : fmt::format("All {} gates", n_passed),
                    counted(samples.size(), "sample"), not_run);
  } else {
    verdict.summary =
        fmt::format("{} did not hold over {}.{}", counted(verdict.problems.size(), "requirement"),
                    counted(samples.size(), "sample"), not_run);
  }
  return verdict;
}

namespace {

// More pairs left out than this share, and the rest need not be like them.
constexpr double kNotRunShare = 0.01;

std::string arm_of(const PairedRow& row) { return row.suite + "/" + row.arm; }

std::string words_of(const std::string& metric) {
  if (metric == "closed") return "closed thinking";
  if (metric == "stopped") return "replies that stop";
  if (metric == "no_loop") return "replies without a loop";
  return metric;
}

// The arm whose smallest callable drop is the smallest of all: of accuracy, where any can be
// called.
const PairedRow* most_sensitive(const Comparison& comparison) {
  const PairedRow* best = nullptr;
  for (const PairedRow& row : comparison.rows) {
    if (!row.language.empty() || (best != nullptr && row.metric != best->metric)) continue;
    const auto points = row.detectable_points();
    if (points && (best == nullptr || *points < *best->detectable_points())) best = &row;
  }
  return best;
}

// What became of what was suspected.
void add_second_stage(Verdict& verdict, const Comparison& comparison,
                      const Confirmation& confirmation, const ComparedRuns& whose) {
  if (confirmation.state == ConfirmationState::kRejected)
    verdict.summary += fmt::format(" What was suspected was not seen again in fresh draws of {}.",
                                   counted(confirmation.n_cases, "case"));
  if (!comparison.needs_confirmation()) return;
  for (const std::string& suspicion : comparison.suspicions)
    verdict.problems.push_back("suspected, not confirmed: " + suspicion);
  for (const std::string& problem : confirmation.problems)
    verdict.problems.push_back("second stage: " + problem);
  verdict.summary += fmt::format(
      " A regression is suspected where tokens are drawn, and luck is not ruled out: decide with "
      "assay compare {} {} --confirm.",
      whose.base, whose.candidate);
  worsen(verdict.state, VerdictState::kInvalid);
}

}  // namespace

void add_comparison(Verdict& verdict, const Comparison& comparison, const std::string& reason,
                    const Confirmation& confirmation, const ComparedRuns& whose) {
  if (!reason.empty()) {
    verdict.problems.push_back("not comparable with the baseline: " + reason);
    if (verdict.state != VerdictState::kRegression) {
      verdict.state = VerdictState::kInvalid;
      verdict.summary = "The run cannot be compared with its baseline.";
    }
    return;
  }
  const auto n_regressed = std::count_if(comparison.flips.begin(), comparison.flips.end(),
                                         [](const Flip& flip) { return flip.regressed; });
  const auto n_fixed = static_cast<std::ptrdiff_t>(comparison.flips.size()) - n_regressed;
  verdict.summary +=
      fmt::format("{}Against the baseline {} of {} samples regressed and {} were fixed",
                  verdict.summary.empty() ? "" : " ", n_regressed, comparison.n_pairs, n_fixed);
  for (const std::string& warning : comparison.warnings) verdict.warnings.push_back(warning);
  if (!comparison.warnings.empty()) worsen(verdict.state, VerdictState::kWarn);
  if (comparison.n_not_run > kNotRunShare * (comparison.n_pairs + comparison.n_not_run)) {
    verdict.problems.push_back(
        fmt::format("{} of {} pairs could not be compared: a side ended in error or timeout",
                    comparison.n_not_run, comparison.n_pairs + comparison.n_not_run));
    worsen(verdict.state, VerdictState::kInvalid);
  }
  if (!comparison.regressions.empty()) {
    verdict.summary += ".";
    for (const std::string& regression : comparison.regressions)
      add_regression(verdict, regression);
  } else if (const PairedRow* row = most_sensitive(comparison)) {
    verdict.summary += fmt::format(
        "{}; a net drop of {:.1f} points of {} in {} would have been called.",
        n_regressed > n_fixed && !comparison.needs_confirmation() && comparison.warnings.empty()
            ? ", which cannot be told from chance"
            : "",
        *row->detectable_points(), words_of(row->metric), arm_of(*row));
  } else {
    verdict.summary += "; with so few samples no drop could have shown.";
    verdict.problems.push_back("too few samples for a comparison: ask more (--profile, --limit)");
    worsen(verdict.state, VerdictState::kInvalid);
  }
  add_second_stage(verdict, comparison, confirmation, whose);
}

void add_finding(Verdict& verdict, VerdictState state, std::string sentence) {
  if (state == VerdictState::kPass) return;
  if (state == VerdictState::kRegression) return add_regression(verdict, std::move(sentence));
  (state == VerdictState::kWarn ? verdict.warnings : verdict.problems)
      .push_back(std::move(sentence));
  worsen(verdict.state, state);
}

std::string headline(const Verdict& verdict) {
  if (verdict.state != VerdictState::kRegression || verdict.n_regressed == 0)
    return verdict.summary;
  const std::string others =
      verdict.n_regressed == 1 ? "" : fmt::format("; and {} more", verdict.n_regressed - 1);
  return fmt::format("Regressed: {}{}.{}{}", verdict.regressed, others,
                     verdict.summary.empty() ? "" : " ", verdict.summary);
}

Json to_json(const Verdict& verdict) {
  Json json = {{"state", name_of(verdict.state)}, {"exit_code", exit_code_of(verdict.state)},
               {"summary", headline(verdict)},    {"problems", verdict.problems},
               {"warnings", verdict.warnings},    {"gates", Json::array()}};
  if (verdict.sampler.has_looked()) json["sampler"] = to_json(verdict.sampler);
  for (const GateResult& g : verdict.gates) {
    Json gate = {{"suite", g.suite},          {"name", g.name},          {"metric", g.metric},
                 {"where", g.where},          {"min", nullptr},          {"max", nullptr},
                 {"state", name_of(g.state)}, {"rate", to_json(g.rate)}, {"detail", g.detail}};
    if (g.min) gate["min"] = *g.min;
    if (g.max) gate["max"] = *g.max;
    json["gates"].push_back(std::move(gate));
  }
  return json;
}

}  // namespace assay::harness
