#include "harness/compare.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>

#include "base/hypothesis.h"
#include "harness/compare_pairs.h"
#include "harness/families.h"

namespace assay::harness {
namespace {

// A drop as large as the floor that is no chance by this is worth a look, though no more: on a row
// of forty a single flip reaches 2 %, and a warning of every night is read by nobody.
constexpr double kWarnP = 0.05;

constexpr GateMetric kMetrics[] = {GateMetric::kAccuracy, GateMetric::kClosed, GateMetric::kStopped,
                                   GateMetric::kNoLoop};

struct Counted {
  PairedRow row;
  SignFlip test;
};

// Whether the arm's replies can differ in this metric at all.
bool has_metric(GateMetric metric, std::span<const Pair> pairs) {
  if (metric != GateMetric::kClosed) return true;
  const bool thinks = std::any_of(pairs.begin(), pairs.end(), [](const Pair& p) {
    return p.base->n_thinking_tokens + p.candidate->n_thinking_tokens > 0;
  });
  // Where thinking is closed by force, a trace a little over the budget is no loss.
  const bool forced = std::any_of(pairs.begin(), pairs.end(), [](const Pair& p) {
    return p.base->forced_close || p.candidate->forced_close;
  });
  return thinks && !forced;
}

Counted count(GateMetric metric, const PairGroup& group) {
  Counted out;
  PairedRow& row = out.row;
  row.suite = group.suite;
  row.arm = group.arm;
  row.language = group.language;
  row.metric = name_of(metric);
  ClusterIds ids;
  std::vector<double> difference;
  std::vector<int> cluster, sums;
  for (const Pair& pair : group.pairs) {
    if (!looks_at(metric, *pair.base) || !looks_at(metric, *pair.candidate)) continue;
    const bool was = holds(metric, *pair.base), is = holds(metric, *pair.candidate);
    row.n_base += was;
    row.n_candidate += is;
    row.n_regressed += was && !is;
    row.n_fixed += is && !was;
    const int id = ids.of(*pair.candidate);
    if (static_cast<std::size_t>(id) == sums.size()) sums.push_back(0);
    sums[static_cast<std::size_t>(id)] += static_cast<int>(is) - static_cast<int>(was);
    difference.push_back(static_cast<double>(is) - static_cast<double>(was));
    cluster.push_back(id);
  }
  const ClusteredMean mean = clustered_difference(difference, cluster);
  row.n = mean.n_samples;
  row.n_clusters = mean.n_clusters;
  row.difference = mean.mean;
  for (const int sum : sums) out.test.add(sum);
  row.p = out.test.p();
  return out;
}

bool reaches_floor(const PairedRow& row, int net_drop) {
  return net_drop > 0 && net_drop >= row.floor * row.n;
}

std::string place_of(const std::string& suite, const std::string& arm,
                     const std::string& language) {
  return fmt::format("{}/{}{}", suite, arm, language.empty() ? "" : "/" + language);
}

std::string sentence_of(const PairedRow& r) {
  return fmt::format(
      "{}: {} fell from {} to {} of {} against the baseline ({} regressed, {} fixed; p = {:.2g}, "
      "{:.2g} after Holm)",
      place_of(r.suite, r.arm, r.language), r.metric, r.n_base, r.n_candidate, r.n, r.n_regressed,
      r.n_fixed, r.p, r.p_holm);
}

std::string sentence_of(const LengthRow& r) {
  return fmt::format(
      "{}: thinking is {:.2f} times as long over {} pairs that closed on both sides (p = {:.2g}, "
      "{:.2g} after Holm)",
      place_of(r.suite, r.arm, r.language), r.ratio, r.n, r.p, r.p_holm);
}

// Small suites share a family: each alone could hardly reach a small p, and all would pay for it.
std::string family_of(const std::string& suite, const std::map<std::string, int>& n_gated) {
  return n_gated.at(suite) < kSmallSuite ? std::string(kSmallSuites) : suite;
}

std::vector<FamilyTest> tests_of(const std::vector<Counted>& counted,
                                 const std::vector<JudgedLength>& lengths) {
  std::vector<FamilyTest> tests;
  for (const Counted& c : counted)
    tests.push_back({c.row.family, c.row.p, [&c](double p) { return c.test.at_most(p); }});
  for (const LengthRow& l : lengths)
    tests.push_back({l.family, l.p, [&l](double p) { return l.least_p <= p ? p : 0; }});
  return tests;
}

// How many more samples, each of a cluster of its own, would have had to regress for the row to be
// called. They may count in every row of the arm.
int detectable_drop(const std::vector<Counted>& counted, std::span<const FamilyTest> tests,
                    std::size_t index) {
  const PairedRow& row = counted[index].row;
  const auto same_arm = [&](std::size_t i) {
    return i < counted.size() && counted[i].row.suite == row.suite && counted[i].row.arm == row.arm;
  };
  SignFlip test = counted[index].test;
  for (int more = 1; more <= row.n_candidate; ++more) {
    test.add(-1);
    if (!reaches_floor(row, row.net_drop() + more)) continue;
    const double p = test.p();
    if (p >= kAlpha) continue;
    if (row.needs_confirmation || adjusted_bound(tests, index, p, same_arm) < kAlpha) return more;
  }
  return row.n + 1;  // not even if all had
}

RowVerdict verdict_of(const PairedRow& row) {
  if (row.suspected && row.needs_confirmation) return RowVerdict::kSuspected;
  if (row.suspected && row.p_holm < kAlpha) return RowVerdict::kRegression;
  const bool significant = row.p < kAlpha && row.net_drop() > 0;
  // An exact test over few clusters can be blind to what the interval excludes.
  const bool large = row.language.empty() && (row.p < kWarnP || row.difference.hi < 0) &&
                     reaches_floor(row, row.net_drop());
  return significant || large ? RowVerdict::kWarn : RowVerdict::kPass;
}

RowVerdict verdict_of(const JudgedLength& row) {
  if (row.p >= kAlpha || (row.ratio < kLengthFloor && row.ratio > 1 / kLengthFloor))
    return RowVerdict::kPass;
  if (row.ratio < 1) return RowVerdict::kWarn;
  if (row.needs_confirmation) return RowVerdict::kSuspected;
  return row.p_holm < kAlpha ? RowVerdict::kRegression : RowVerdict::kWarn;
}

TokenAt token_at(const Sample& s, std::size_t position) {
  TokenAt out;
  if (position < s.ids.size()) out.id = s.ids[position];
  if (position < s.steps.size())
    for (const TopToken& top : s.steps[position].top)
      if (top.id >= 0) out.top.push_back({top.id, top.logprob});
  return out;
}

Flip flip_of(const Pair& pair, bool regressed) {
  const Sample &b = *pair.base, &c = *pair.candidate;
  Flip f;
  f.key = c.key();
  f.language = c.language;
  f.kind = c.kind;
  f.question = c.question;
  f.expected = c.expected;
  f.base_class = class_of(b.outcome);
  f.candidate_class = class_of(c.outcome);
  f.base_answer = b.answer;
  f.candidate_answer = c.answer;
  const auto end = std::mismatch(b.ids.begin(), b.ids.end(), c.ids.begin(), c.ids.end()).first;
  f.first_difference = static_cast<int>(end - b.ids.begin());
  f.base_token = token_at(b, static_cast<std::size_t>(f.first_difference));
  f.candidate_token = token_at(c, static_cast<std::size_t>(f.first_difference));
  f.regressed = regressed;
  return f;
}

// Counts and flips; returns the pairs in which both sides ran.
std::vector<Pair> look_at_pairs(std::span<const Sample> base, std::span<const Sample> candidate,
                                const CompareRules& rules, Comparison& out) {
  std::vector<Pair> ran;
  using Place = std::tuple<bool, std::ptrdiff_t, std::string>;  // fixed, arm, key
  std::vector<std::pair<Place, Flip>> flips;
  for (const Pair& pair : pairs_of(base, candidate)) {
    const Sample &b = *pair.base, &c = *pair.candidate;
    if (!b.ran() || !c.ran()) {
      const bool broke = c.finish == "non_finite" && b.finish != "non_finite";
      ++(broke ? out.n_non_finite : out.n_not_run);
      continue;
    }
    ran.push_back(pair);
    out.n_same_tokens += b.ids == c.ids;
    const bool was = holds(GateMetric::kAccuracy, b), is = holds(GateMetric::kAccuracy, c);
    out.n_both_wrong += looks_at(GateMetric::kAccuracy, c) && !was && !is;
    if (was == is) continue;
    const auto arm = std::find(rules.arms.begin(), rules.arms.end(), c.suite + "/" + c.arm);
    flips.emplace_back(Place{is, arm - rules.arms.begin(), c.key()}, flip_of(pair, was));
  }
  out.n_pairs = static_cast<int>(ran.size());
  std::sort(flips.begin(), flips.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [place, flip] : flips) out.flips.push_back(std::move(flip));
  return ran;
}

void note(Comparison& out, RowVerdict verdict, std::string sentence) {
  std::vector<std::string>* const lists[] = {nullptr, &out.warnings, &out.suspicions,
                                             &out.regressions};  // by RowVerdict
  if (auto* list = lists[static_cast<int>(verdict)]) list->push_back(std::move(sentence));
}

}  // namespace

std::string_view name_of(RowVerdict verdict) {
  constexpr std::string_view kNames[] = {"pass", "warn", "suspected", "regression"};
  return kNames[static_cast<int>(verdict)];
}

std::optional<double> PairedRow::detectable_points() const {
  if (detectable > n) return std::nullopt;
  return 100.0 * (net_drop() + detectable) / n;
}

Comparison compare(std::span<const Sample> base, std::span<const Sample> candidate,
                   const CompareRules& rules) {
  Comparison out;
  const std::vector<Pair> pairs = look_at_pairs(base, candidate, rules, out);
  std::map<std::string, int> n_gated;
  for (const Pair& pair : pairs) n_gated[pair.candidate->suite] += pair.candidate->gated;
  const std::vector<PairGroup> groups = group_pairs(pairs, rules.arms);

  std::vector<Counted> counted;
  for (const GateMetric metric : kMetrics)
    for (const PairGroup& group : groups) {
      if (!has_metric(metric, group.pairs)) continue;
      Counted one = count(metric, group);
      if (one.row.n == 0) continue;
      one.row.family = family_of(group.suite, n_gated);
      one.row.floor = rules.floor_of(group.suite);
      one.row.needs_confirmation = rules.needs_confirmation(group.suite, group.arm);
      one.row.suspected = one.row.p < kAlpha && reaches_floor(one.row, one.row.net_drop());
      counted.push_back(std::move(one));
    }
  for (const PairGroup& group : groups) {
    JudgedLength row{length_row(group.pairs)};
    if (row.n == 0) continue;
    row.suite = group.suite;
    row.arm = group.arm;
    row.language = group.language;
    row.family = family_of(group.suite, n_gated);
    row.needs_confirmation = rules.needs_confirmation(group.suite, group.arm);
    out.lengths.push_back(std::move(row));
  }

  const std::vector<FamilyTest> tests = tests_of(counted, out.lengths);
  const std::vector<double> adjusted = adjust_in_families(tests);
  if (out.n_non_finite > 0)
    out.regressions.push_back(fmt::format(
        "{} replies met NaN or Inf in the logits, which the baseline's did not", out.n_non_finite));
  for (std::size_t i = 0; i < counted.size(); ++i) {
    PairedRow& row = counted[i].row;
    row.p_holm = adjusted[i];
    row.detectable = detectable_drop(counted, tests, i);
    row.verdict = verdict_of(row);
    note(out, row.verdict, sentence_of(row));
  }
  for (std::size_t i = 0; i < out.lengths.size(); ++i) {
    JudgedLength& row = out.lengths[i];
    row.p_holm = adjusted[counted.size() + i];
    row.verdict = verdict_of(row);
    note(out, row.verdict, sentence_of(row));
  }
  for (Counted& one : counted) out.rows.push_back(std::move(one.row));
  return out;
}

namespace {

// The first place where two values differ: "arms/0/temperature is 0.0, here 0.6".
std::string first_difference(const Json& base, const Json& here, const std::string& place) {
  const bool both_objects = base.is_object() && here.is_object(),
             both_arrays = base.is_array() && here.is_array() && base.size() == here.size();
  if (both_objects || both_arrays)
    for (const auto& [key, value] : here.items()) {
      const Json was = both_arrays ? base.at(std::stoul(key)) : base.value(key, Json());
      if (was == value) continue;
      const std::string name =
          value.is_object() && value.contains("name") ? value.at("name").get<std::string>() : key;
      return first_difference(was, value, place.empty() ? name : place + "/" + name);
    }
  if (both_objects)
    for (const auto& [key, value] : base.items())
      if (!here.contains(key)) return first_difference(value, Json(), place + "/" + key);
  // Of things with names the names.
  const auto text = [](const Json& value) {
    std::string names;
    for (const Json& one : value.is_array() ? value : Json::array()) {
      if (!one.is_object() || !one.contains("name")) return value.dump().substr(0, 80);
      names += (names.empty() ? "" : ", ") + one.at("name").get<std::string>();
    }
    return names.empty() ? value.dump().substr(0, 80) : names;
  };
  return fmt::format("{} is {}, here {}", place, text(base), text(here));
}

// Which suite, and in what.
std::string suites_differ(const Json& base, const Json& candidate) {
  const auto named = [](const Json& suites, const Json& name) {
    return std::find_if(suites.begin(), suites.end(),
                        [&](const Json& s) { return s.at("name") == name; });
  };
  for (const Json& suite : candidate) {
    const auto was = named(base, suite.at("name"));
    const std::string name = suite.at("name").get<std::string>();
    if (was == base.end()) return fmt::format("the baseline was not asked suite {}", name);
    const auto n_asked = [](const Json& of) { return of.value("n_items", -1); };
    if (n_asked(*was) != n_asked(suite)) {
      const auto asked = [&](const Json& of) {
        return n_asked(of) < 0 ? std::string("was asked it alone, or without a limit")
                               : fmt::format("was asked {} of its samples", n_asked(of));
      };
      return fmt::format(
          "the two were not asked suite {} alike: the baseline {}, this run {}. --limit is spread "
          "over a run's suites: run one of them again with the suites and the --limit of the other",
          name, asked(*was), asked(suite));
    }
    if (*was != suite)
      return fmt::format(
          "the two were not asked suite {} alike: of the baseline {}. Run one of them again with "
          "what the other was asked",
          name, first_difference(*was, suite, ""));
  }
  for (const Json& suite : base)
    if (named(candidate, suite.at("name")) == candidate.end())
      return fmt::format("the baseline was also asked suite {}, this run was not",
                         suite.at("name").get<std::string>());
  return "the baseline was asked the suites in another order";
}

}  // namespace

std::string not_comparable(const Json& base_run, const Json& candidate_run,
                           std::span<const Sample> base, std::span<const Sample> candidate) {
  if (const std::string status = base_run.value("status", ""); status != "complete")
    return fmt::format("the baseline's status is \"{}\": finish it with --resume first", status);
  const Json &b = base_run.at("plan"), &c = candidate_run.at("plan");
  if (b.contains("suites") && c.contains("suites") && b.at("suites") != c.at("suites"))
    return suites_differ(b.at("suites"), c.at("suites"));
  for (const auto& [key, value] : c.items())
    if (!b.contains(key) || b.at(key) != value)
      return fmt::format(
          "the baseline's plan differs in \"{}\" ({} against {}): run it again with the options of "
          "this run",
          key, b.value(key, Json()).dump().substr(0, 80), value.dump().substr(0, 80));
  std::unordered_map<std::string, const Sample*> by_key;
  for (const Sample& s : base) by_key[s.key()] = &s;
  for (const Sample& s : candidate) {
    const auto it = by_key.find(s.key());
    if (it == by_key.end()) return fmt::format("the baseline has no sample {}", s.key());
    // A record of format 1 has no hash, but every prompt's ids.
    const bool hashed = !it->second->prompt_hash.empty() && !s.prompt_hash.empty();
    if (hashed ? it->second->prompt_hash != s.prompt_hash : it->second->prompt_ids != s.prompt_ids)
      return fmt::format(
          "{}: the prompt's token ids differ, so the tokenizer or the chat template does", s.key());
  }
  return "";
}

}  // namespace assay::harness
