#include "harness/selftest.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "harness/compare.h"
#include "harness/compare_fidelity.h"
#include "harness/spread.h"

namespace assay::harness {
namespace {

bool is_accusing(VerdictState state) {
  return state == VerdictState::kRegression || state == VerdictState::kInvalid;
}

std::string row_name(const PairedRow& row) {
  return fmt::format("{}/{}{}: {}", row.suite, row.arm,
                     row.language.empty() ? "" : "/" + row.language, row.metric);
}

// What in a verdict and a comparison speaks against the run.
std::vector<std::string> reasons(const Verdict& verdict, const Comparison& compared,
                                 const std::string& not_comparable_because) {
  std::vector<std::string> out;
  if (!not_comparable_because.empty()) out.push_back("not comparable: " + not_comparable_because);
  if (compared.n_non_finite > 0) out.push_back("NaN or Inf in the logits");
  if (!verdict.sampler.holds()) out.push_back("sampler: " + verdict.sampler.text());
  for (const GateResult& gate : verdict.gates)
    if (gate.state == GateState::kFail)
      out.push_back(fmt::format("gate {}/{}", gate.suite, gate.name));
  for (const PairedRow& row : compared.rows)
    if (row.verdict == RowVerdict::kRegression) out.push_back("compare " + row_name(row));
  for (const PairedRow& row : compared.rows)
    if (row.verdict == RowVerdict::kSuspected) out.push_back("suspected " + row_name(row));
  for (const JudgedLength& row : compared.lengths)
    if (row.verdict == RowVerdict::kRegression || row.verdict == RowVerdict::kSuspected)
      out.push_back(fmt::format("{} {}/{}{}: length of thinking",
                                row.verdict == RowVerdict::kRegression ? "compare" : "suspected",
                                row.suite, row.arm,
                                row.language.empty() ? "" : "/" + row.language));
  return out;
}

struct Judged {
  Verdict verdict;
  std::vector<std::string> why;
};

Judged judge_pair(const Plan& plan, const CompareRules& rules, std::span<const Sample> base,
                  std::span<const Sample> candidate, const Confirmation* second = nullptr,
                  const Comparison* first = nullptr, const Fidelity& fidelity = {}) {
  Judged out;
  out.verdict = judge(plan, candidate);
  const Json same = {{"status", "complete"}, {"plan", plan.to_json()}};
  const std::string reason = not_comparable(same, same, base, candidate);
  Comparison compared;
  if (reason.empty()) compared = first ? *first : compare(base, candidate, rules);
  if (second) compared = settled(std::move(compared), *second);
  if (reason.empty()) {
    add_comparison(out.verdict, compared, fidelity, second ? *second : Confirmation{});
  } else {
    add_comparison(out.verdict, {}, reason);
  }
  out.why = reasons(out.verdict, compared, reason);
  return out;
}

// The plan's first `n` items in spread order, and the samples that belong to them.
struct Part {
  Plan plan;
  std::vector<Sample> base, candidate;
};

Part part_of(const Plan& plan, const std::vector<std::size_t>& order, std::size_t n,
             const std::map<std::string, const Sample*>& base,
             const std::map<std::string, const Sample*>& candidate) {
  std::vector<std::size_t> chosen(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n));
  std::sort(chosen.begin(), chosen.end());
  Part part;
  part.plan.options = plan.options;
  part.plan.suites = plan.suites;
  for (const std::size_t i : chosen) {
    part.plan.items.push_back(plan.items[i]);
    const std::string key = plan.key_of(plan.items[i]);
    if (const auto it = base.find(key); it != base.end()) part.base.push_back(*it->second);
    if (const auto it = candidate.find(key); it != candidate.end())
      part.candidate.push_back(*it->second);
  }
  return part;
}

std::map<std::string, const Sample*> by_key(std::span<const Sample> samples) {
  std::map<std::string, const Sample*> out;
  for (const Sample& s : samples) out[s.key()] = &s;
  return out;
}

// The first stage alone accuses the candidate, and not the base, of so small a run.
bool is_seen_in(const Part& part, const CompareRules& rules) {
  if (is_accusing(judge(part.plan, part.base).state)) return false;
  const Judged judged = judge_pair(part.plan, rules, part.base, part.candidate);
  // "Too few samples for a comparison" accuses nobody.
  return is_accusing(judged.verdict.state) && !judged.why.empty();
}

// The smallest run at and above which every size that was tried sees it.
int samples_needed(const Plan& plan, const CompareRules& rules, std::span<const Sample> base,
                   std::span<const Sample> candidate) {
  const std::vector<std::size_t> order = spread_order(plan);
  const auto base_of = by_key(base), candidate_of = by_key(candidate);
  int needed = static_cast<int>(order.size());
  // Halving with a step between: 3/4, 1/2, 3/8, 1/4 … of the whole.
  for (std::size_t whole = order.size(); whole >= 8; whole /= 2)
    for (const std::size_t n : {whole * 3 / 4, whole / 2}) {
      if (!is_seen_in(part_of(plan, order, n, base_of, candidate_of), rules)) return needed;
      needed = static_cast<int>(n);
    }
  return needed;
}

// Of the divergence on `n` of its texts.
Fidelity fidelity_on(const Json& base, const Json& candidate, std::size_t n) {
  Json runs[] = {{{"measurements", base}}, {{"measurements", candidate}}};
  for (Json& run : runs)
    for (Json& measurement : run["measurements"]) {
      Json& texts = measurement["result"]["texts"];
      texts = spread_over(texts.get<std::vector<Json>>(), n);
    }
  return compare_fidelity(runs[0], runs[1]);
}

// The fewest texts at and above which every number of them shows it; `n_texts` do.
int texts_needed(const Json& base, const Json& candidate, int n_texts) {
  int n = n_texts;
  while (n > 1 &&
         !fidelity_on(base, candidate, static_cast<std::size_t>(n - 1)).regressions.empty())
    --n;
  return n;
}

// What the divergence has against the run.
std::string divergence_reason(const Fidelity& fidelity) {
  std::vector<std::string> languages;
  double largest = 0;
  for (const FidelityRow& row : fidelity.rows) {
    if (row.verdict != RowVerdict::kRegression) continue;
    languages.push_back(row.language);
    largest = std::max(largest, row.ratio->estimate);
  }
  return fmt::format("divergence ({}) × {:.3g}", fmt::join(languages, ", "), largest);
}

}  // namespace

std::vector<std::size_t> spread_order(const Plan& plan) {
  std::map<std::pair<int, int>, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < plan.items.size(); ++i)
    groups[{plan.items[i].suite, plan.items[i].arm}].push_back(i);
  std::vector<std::pair<double, std::size_t>> places;
  for (const auto& [arm, items] : groups)
    for (std::size_t j = 0; j < items.size(); ++j)
      places.emplace_back((static_cast<double>(j) + 0.5) / static_cast<double>(items.size()),
                          items[j]);
  std::sort(places.begin(), places.end());
  std::vector<std::size_t> order;
  for (const auto& [place, item] : places) order.push_back(item);
  return order;
}

Detection detect(const SelftestFault& fault, const Plan& plan, std::span<const Sample> base,
                 const FaultRun& run) {
  Detection d;
  d.fault = fault.name;
  d.what = fault.what;
  d.strength = fault.strength;
  d.build = fault.quantised ? "vq" : "bf16";
  d.strong = fault.strong;
  d.minutes = run.wall_s / 60;
  if (!run.refused.empty()) {
    d.state = "refused";
    d.by = {run.refused};
    return d;
  }
  d.n_samples = static_cast<int>(run.samples.size());
  const CompareRules rules = rules_of(plan);
  const Comparison first = compare(base, run.samples, rules);
  const Confirmation second = confirm(first, run.base_again, run.candidate_again);
  const bool has_second = !run.candidate_again.empty();
  Fidelity fidelity;
  if (!run.measurements.empty() && !run.base_measurements.empty()) {
    d.n_texts = static_cast<int>(run.measurements[0].at("result").at("texts").size());
    fidelity =
        fidelity_on(run.base_measurements, run.measurements, static_cast<std::size_t>(d.n_texts));
  }
  Judged judged =
      judge_pair(plan, rules, base, run.samples, has_second ? &second : nullptr, &first, fidelity);
  if (!fidelity.regressions.empty()) {
    judged.why.push_back(divergence_reason(fidelity));
    d.n_texts_needed = texts_needed(run.base_measurements, run.measurements, d.n_texts);
  }
  add_goldens(judged.verdict, run.goldens);
  for (const GoldenCheck& check : run.goldens)
    if (check.diverged())
      judged.why.push_back(fmt::format("golden {}: {} of {} replies", check.name,
                                       check.divergences.size(), check.n_replies));
  d.state = name_of(judged.verdict.state);
  d.by = std::move(judged.why);
  if (!d.caught()) return d;
  // What reading the texts took is no part of asking.
  const double asking = (run.wall_s - run.divergence_wall_s) / 60;
  if (is_seen_in({plan, {base.begin(), base.end()}, run.samples}, rules)) {
    d.n_needed = samples_needed(plan, rules, base, run.samples);
  } else if (d.n_texts_needed > 0) {  // seen by the divergence, nothing need be asked
    d.minutes_needed = run.divergence_wall_s / 60 * d.n_texts_needed / d.n_texts;
    return d;
  } else {  // by a golden alone, it needed the whole run
    d.n_needed = d.n_samples;
  }
  d.minutes_needed = asking * d.n_needed / std::max(1, d.n_samples);
  return d;
}

Night judge_night(int number, const Plan& plan, std::span<const Sample> base,
                  std::span<const Sample> candidate, const Confirmation& second) {
  Night night;
  night.number = number;
  night.n_samples = static_cast<int>(base.size() + candidate.size());
  for (const auto side : {base, candidate})
    for (const Sample& s : side) night.n_tokens += static_cast<long>(s.ids.size());
  const Comparison first = compare(base, candidate, rules_of(plan));
  const Comparison last = settled(first, second);
  night.suspicions = first.suspicions;
  night.regressions = last.regressions;
  Verdict verdict;
  verdict.state = VerdictState::kPass;
  add_comparison(verdict, last, "", second);
  night.state = name_of(verdict.state);
  if (verdict.state == VerdictState::kInvalid) night.problems = verdict.problems;
  for (const auto side : {base, candidate}) {
    const SamplerCheck sampler = check_sampler(side);
    night.log10_evidence = std::max(night.log10_evidence, sampler.log10_evidence);
    night.sampler_accused |= !sampler.holds();
    night.gates_hold &= !is_accusing(judge(plan, side).state) || !sampler.holds();
  }
  return night;
}

FalseFails count_false_fails(std::span<const Night> nights) {
  FalseFails out;
  out.n_nights = static_cast<int>(nights.size());
  for (const Night& night : nights) {
    out.n_suspected += !night.suspicions.empty();
    out.n_failed += night.state == name_of(VerdictState::kRegression) || night.sampler_accused;
    out.n_inconclusive += night.state == name_of(VerdictState::kInvalid);
    out.n_sampler += night.sampler_accused;
    out.n_gates += !night.gates_hold;
    out.n_samples += night.n_samples;
    out.n_tokens += night.n_tokens;
  }
  // A two-sided interval of 90 % leaves 5 % above it.
  if (out.n_nights > 0) out.upper95 = clopper_pearson(out.n_failed, out.n_nights, 0.9).hi;
  return out;
}

bool selftest_passes(std::span<const Detection> detections, const FalseFails& fails) {
  const bool all_caught = std::all_of(detections.begin(), detections.end(),
                                      [](const Detection& d) { return !d.strong || d.caught(); });
  const bool surely_too_often =
      fails.n_nights > 0 && clopper_pearson(fails.n_failed, fails.n_nights, 0.9).lo > kAlpha;
  return all_caught && !surely_too_often;
}

Json to_json(const Night& n) {
  return {{"number", n.number},
          {"state", n.state},
          {"n_samples", n.n_samples},
          {"n_tokens", n.n_tokens},
          {"suspicions", n.suspicions},
          {"regressions", n.regressions},
          {"problems", n.problems},
          {"log10_evidence", n.log10_evidence},
          {"sampler_accused", n.sampler_accused},
          {"gates_hold", n.gates_hold},
          {"wall_s", n.wall_s}};
}

Result<Night> parse_night(const Json& json, std::string_view where) {
  Night n;
  try {
    json.at("number").get_to(n.number);
    json.at("state").get_to(n.state);
    json.at("n_samples").get_to(n.n_samples);
    json.at("n_tokens").get_to(n.n_tokens);
    json.at("suspicions").get_to(n.suspicions);
    json.at("regressions").get_to(n.regressions);
    json.at("problems").get_to(n.problems);
    json.at("log10_evidence").get_to(n.log10_evidence);
    json.at("sampler_accused").get_to(n.sampler_accused);
    json.at("gates_hold").get_to(n.gates_hold);
    json.at("wall_s").get_to(n.wall_s);
  } catch (const Json::exception& error) {
    return fail("{}: not a night of a selftest: {}. Remove the file to have it run again.", where,
                error.what());
  }
  return n;
}

Json to_json(const Detection& d) {
  return {{"fault", d.fault},         {"what", d.what},
          {"strength", d.strength},   {"build", d.build},
          {"strong", d.strong},       {"caught", d.caught()},
          {"state", d.state},         {"by", d.by},
          {"n_samples", d.n_samples}, {"n_needed", d.n_needed},
          {"n_texts", d.n_texts},     {"n_texts_needed", d.n_texts_needed},
          {"minutes", d.minutes},     {"minutes_needed", d.minutes_needed}};
}

Result<Detection> parse_detection(const Json& json, std::string_view where) {
  Detection d;
  try {
    json.at("fault").get_to(d.fault);
    json.at("what").get_to(d.what);
    json.at("strength").get_to(d.strength);
    json.at("build").get_to(d.build);
    json.at("strong").get_to(d.strong);
    json.at("state").get_to(d.state);
    json.at("by").get_to(d.by);
    json.at("n_samples").get_to(d.n_samples);
    json.at("n_needed").get_to(d.n_needed);
    d.n_texts = json.value("n_texts", 0);
    d.n_texts_needed = json.value("n_texts_needed", 0);
    json.at("minutes").get_to(d.minutes);
    json.at("minutes_needed").get_to(d.minutes_needed);
  } catch (const Json::exception& error) {
    return fail("{}: not a fault of a selftest: {}. Remove the file to have it run again.", where,
                error.what());
  }
  return d;
}

Json to_json(const FalseFails& f) {
  return {{"n_nights", f.n_nights},   {"n_suspected", f.n_suspected},
          {"n_failed", f.n_failed},   {"n_inconclusive", f.n_inconclusive},
          {"n_sampler", f.n_sampler}, {"n_gates", f.n_gates},
          {"n_samples", f.n_samples}, {"n_tokens", f.n_tokens},
          {"upper95", f.upper95}};
}

}  // namespace assay::harness
