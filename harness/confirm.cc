#include "harness/confirm.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/hash.h"
#include "base/hypothesis.h"
#include "harness/compare_pairs.h"
#include "harness/families.h"

namespace assay::harness {
namespace {

// More missing draws than this share of a row, and it is not the same row any more.
constexpr double kMissingShare = 0.05;

std::string case_key(const Sample& s) { return s.suite + "/" + s.arm + "/" + s.id; }

std::optional<GateMetric> metric_of(const std::string& name) {
  for (const GateMetric m :
       {GateMetric::kAccuracy, GateMetric::kClosed, GateMetric::kStopped, GateMetric::kNoLoop})
    if (name_of(m) == name) return m;
  return std::nullopt;
}

// Row: PairedRow or JudgedLength.
template <class Row>
bool counts_in(const Sample& s, const Row& row) {
  return s.gated && s.suite == row.suite && s.arm == row.arm &&
         (row.language.empty() || s.language == row.language);
}

template <class Row>
bool is_suspect(const Row& row) {
  return row.verdict == RowVerdict::kSuspected;
}

// The pairs of a row in which both sides ran; counts the others.
std::vector<Pair> ran_in(const JudgedLength& row, std::span<const Pair> pairs, int& n_missing) {
  std::vector<Pair> out;
  for (const Pair& pair : pairs) {
    if (!counts_in(*pair.candidate, row)) continue;
    if (pair.base->ran() && pair.candidate->ran())
      out.push_back(pair);
    else
      ++n_missing;
  }
  return out;
}

// Cases of a suspected row, by whether any of their pairs is discordant.
struct Cases {
  std::set<std::string> discordant, concordant;
};

Cases cases_of(const Comparison& first, std::span<const Pair> pairs) {
  Cases out;
  std::set<std::string> all;
  for (const PairedRow& row : first.rows) {
    const auto metric = metric_of(row.metric);
    if (!is_suspect(row) || !metric) continue;
    for (const Pair& pair : pairs) {
      const Sample &b = *pair.base, &c = *pair.candidate;
      if (!counts_in(c, row) || !looks_at(*metric, b) || !looks_at(*metric, c)) continue;
      all.insert(case_key(c));
      if (holds(*metric, b) != holds(*metric, c)) out.discordant.insert(case_key(c));
    }
  }
  std::set_difference(all.begin(), all.end(), out.discordant.begin(), out.discordant.end(),
                      std::inserter(out.concordant, out.concordant.end()));
  return out;
}

struct Counted {
  ConfirmedRow row;
  SignFlip test;
  double least_p = 0;  // of a length: that so many clusters could have given
  int n_missing = 0;

  bool is_length() const { return row.metric == kLengthMetric; }
  double at_most(double p) const { return is_length() ? (least_p <= p ? p : 0) : test.at_most(p); }
};

Counted measure(const JudgedLength& suspect, std::span<const Pair> pairs) {
  Counted out;
  const std::vector<Pair> ran = ran_in(suspect, pairs, out.n_missing);
  const LengthRow length = length_row(ran);
  out.least_p = length.least_p;
  out.row = {.suite = suspect.suite,
             .arm = suspect.arm,
             .language = suspect.language,
             .metric = std::string(kLengthMetric),
             .family = suspect.family,
             .n_clusters = length.n_clusters,
             .n = length.n,
             .p = length.p,
             .ratio = length.ratio};
  std::set<std::string> cases;
  for (const Pair& pair : ran) {
    cases.insert(case_key(*pair.candidate));
    if (!closed_its_thinking(*pair.base) || !closed_its_thinking(*pair.candidate)) continue;
    out.row.n_base += pair.base->n_thinking_tokens;
    out.row.n_candidate += pair.candidate->n_thinking_tokens;
  }
  out.row.n_cases = static_cast<int>(cases.size());
  return out;
}

Counted count(const PairedRow& suspect, std::span<const Pair> pairs) {
  Counted out;
  ConfirmedRow& row = out.row;
  row.suite = suspect.suite;
  row.arm = suspect.arm;
  row.language = suspect.language;
  row.metric = suspect.metric;
  row.family = suspect.family;
  const auto metric = metric_of(suspect.metric);
  std::set<std::string> cases;
  std::map<std::string, int> sums;
  for (const Pair& pair : pairs) {
    const Sample &b = *pair.base, &c = *pair.candidate;
    if (!metric || !counts_in(c, suspect)) continue;
    if (!b.ran() || !c.ran()) {
      ++out.n_missing;
      continue;
    }
    if (!looks_at(*metric, b) || !looks_at(*metric, c)) continue;
    const bool was = holds(*metric, b), is = holds(*metric, c);
    ++row.n;
    row.n_base += was;
    row.n_candidate += is;
    sums[c.cluster] += static_cast<int>(is) - static_cast<int>(was);
    cases.insert(case_key(c));
  }
  row.n_cases = static_cast<int>(cases.size());
  row.n_clusters = static_cast<int>(sums.size());
  for (const auto& [cluster, sum] : sums) out.test.add(sum);
  row.p = out.test.p();
  return out;
}

std::string place_of(const ConfirmedRow& r) {
  return fmt::format("{}/{}{}", r.suite, r.arm, r.language.empty() ? "" : "/" + r.language);
}

}  // namespace

std::vector<std::string> confirm_keys(const Comparison& first, std::span<const Sample> base,
                                      std::span<const Sample> candidate) {
  std::vector<Pair> ran;
  for (const Pair& pair : pairs_of(base, candidate))
    if (pair.base->ran() && pair.candidate->ran()) ran.push_back(pair);
  const Cases cases = cases_of(first, ran);
  std::vector<std::pair<std::uint64_t, std::string>> controls;
  for (const std::string& key : cases.concordant) controls.emplace_back(hash_u64(key), key);
  std::sort(controls.begin(), controls.end());
  controls.resize(std::min(controls.size(), cases.discordant.size()));
  std::set<std::string> keys = cases.discordant;
  for (auto& [hash, key] : controls) keys.insert(std::move(key));
  for (const JudgedLength& row : first.lengths)
    for (const Pair& pair : ran)
      if (is_suspect(row) && counts_in(*pair.candidate, row))
        keys.insert(case_key(*pair.candidate));
  return {keys.begin(), keys.end()};
}

std::uint64_t confirmation_seed(std::uint64_t first_seed) {
  const std::uint64_t seed = hash_u64(fmt::format("assay confirm {}", first_seed));
  return seed == first_seed ? ~seed : seed;
}

Plan confirmation_plan(Plan plan, std::span<const std::string> keys, int n_draws) {
  const std::set<std::string> wanted(keys.begin(), keys.end());
  std::set<std::string> seen;
  std::vector<PlanItem> items;
  for (PlanItem item : plan.items) {
    item.repeat = 0;
    const std::string key = plan.key_of(item);
    if (!wanted.contains(key) || !seen.insert(key).second) continue;
    for (int draw = 1; draw <= n_draws; ++draw) {
      item.repeat = draw;
      items.push_back(item);
    }
  }
  plan.items = std::move(items);
  plan.options.seed = confirmation_seed(plan.options.seed);
  for (Suite& suite : plan.suites)
    for (Arm& arm : suite.arms) arm.repeats = n_draws;
  return plan;
}

std::string_view name_of(ConfirmationState state) {
  constexpr std::string_view kNames[] = {"not_needed", "rejected", "confirmed", "inconclusive"};
  return kNames[static_cast<int>(state)];
}

Confirmation confirm(const Comparison& first, std::span<const Sample> base_again,
                     std::span<const Sample> candidate_again) {
  Confirmation out;
  const std::vector<Pair> pairs = pairs_of(base_again, candidate_again);
  std::set<std::string> cases;
  for (const Pair& pair : pairs) cases.insert(case_key(*pair.candidate));
  out.n_cases = static_cast<int>(cases.size());
  // A draw that only one side has.
  const auto n_alone = base_again.size() + candidate_again.size() - 2 * pairs.size();

  std::vector<Counted> counted;
  for (const PairedRow& row : first.rows)
    if (is_suspect(row)) counted.push_back(count(row, pairs));
  for (const JudgedLength& row : first.lengths)
    if (is_suspect(row)) counted.push_back(measure(row, pairs));
  if (counted.empty()) return out;
  std::vector<FamilyTest> tests;
  for (const Counted& c : counted)
    tests.push_back({c.row.family, c.row.p, [&c](double p) { return c.at_most(p); }});
  const std::vector<double> adjusted = adjust_in_families(tests);
  if (n_alone > 0)
    out.problems.push_back(fmt::format("{} draws are there on one side only", n_alone));
  for (std::size_t i = 0; i < counted.size(); ++i) {
    ConfirmedRow& row = counted[i].row;
    row.p_holm = adjusted[i];
    const bool is_length = counted[i].is_length();
    row.confirmed =
        row.p_holm < kAlpha && (is_length ? row.ratio > 1 : row.n_candidate < row.n_base);
    const int n_missing = counted[i].n_missing;
    if (row.n == 0 || n_missing > kMissingShare * (row.n + n_missing))
      out.problems.push_back(fmt::format("{}: {} of {} pairs of draws could not be compared",
                                         place_of(row), n_missing, row.n + n_missing));
    if (row.confirmed && is_length)
      out.regressions.push_back(fmt::format(
          "{}: thinking was {:.2f} times as long again, over {} fresh draws of {} cases "
          "(p = {:.2g} after Holm)",
          place_of(row), row.ratio, row.n, row.n_cases, row.p_holm));
    else if (row.confirmed)
      out.regressions.push_back(fmt::format(
          "{}: {} fell again, from {} to {} of {} fresh draws of {} cases (p = {:.2g} after Holm)",
          place_of(row), row.metric, row.n_base, row.n_candidate, row.n, row.n_cases, row.p_holm));
    out.n_missing += n_missing;
    out.rows.push_back(std::move(row));
  }
  out.state = !out.problems.empty()     ? ConfirmationState::kInconclusive
              : out.regressions.empty() ? ConfirmationState::kRejected
                                        : ConfirmationState::kConfirmed;
  return out;
}

Comparison settled(Comparison first, const Confirmation& second) {
  if (second.state != ConfirmationState::kConfirmed && second.state != ConfirmationState::kRejected)
    return first;
  const auto decide = [&](auto& row, std::string_view metric) {
    if (!is_suspect(row)) return;
    const bool confirmed =
        std::any_of(second.rows.begin(), second.rows.end(), [&](const ConfirmedRow& r) {
          return r.confirmed && r.suite == row.suite && r.arm == row.arm &&
                 r.language == row.language && r.metric == metric;
        });
    row.verdict = confirmed ? RowVerdict::kRegression : RowVerdict::kPass;
  };
  for (PairedRow& row : first.rows) decide(row, row.metric);
  for (JudgedLength& row : first.lengths) decide(row, kLengthMetric);
  first.suspicions.clear();
  first.regressions.insert(first.regressions.end(), second.regressions.begin(),
                           second.regressions.end());
  return first;
}

Json to_json(const Confirmation& c) {
  Json rows = Json::array();
  for (const ConfirmedRow& r : c.rows)
    rows.push_back({{"suite", r.suite},
                    {"arm", r.arm},
                    {"language", r.language},
                    {"metric", r.metric},
                    {"family", r.family},
                    {"n_cases", r.n_cases},
                    {"n_clusters", r.n_clusters},
                    {"n", r.n},
                    {"n_base", r.n_base},
                    {"n_candidate", r.n_candidate},
                    {"ratio", r.ratio},
                    {"p", r.p},
                    {"p_holm", r.p_holm},
                    {"confirmed", r.confirmed}});
  return {{"state", name_of(c.state)}, {"n_cases", c.n_cases},         {"n_missing", c.n_missing},
          {"rows", std::move(rows)},   {"regressions", c.regressions}, {"problems", c.problems}};
}

}  // namespace assay::harness
