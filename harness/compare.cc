#include "harness/compare.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>

namespace assay::harness {
namespace {

struct Pair {
  const Sample *base, *candidate;
};

std::vector<Pair> pairs_of(std::span<const Sample> base, std::span<const Sample> candidate) {
  std::map<std::string, const Sample*> by_key;
  for (const Sample& s : base) by_key[s.key()] = &s;
  std::vector<Pair> out;
  for (const Sample& s : candidate)
    if (const auto it = by_key.find(s.key()); it != by_key.end()) out.push_back({it->second, &s});
  return out;
}

bool holds(GateMetric metric, const Sample& s) {
  const Sample* one[] = {&s};
  return rate_of(metric, one).n_true == 1;
}

PairedRow row_of(GateMetric metric, const std::vector<Pair>& pairs) {
  PairedRow row;
  row.metric = name_of(metric);
  std::map<std::string, int> cluster_ids;
  std::vector<double> difference;
  std::vector<int> cluster, sums;
  for (const Pair& pair : pairs) {
    const bool was = holds(metric, *pair.base), is = holds(metric, *pair.candidate);
    row.n_base += was;
    row.n_candidate += is;
    row.n_regressed += was && !is;
    row.n_fixed += is && !was;
    const int id =
        cluster_ids.emplace(pair.candidate->cluster, static_cast<int>(cluster_ids.size()))
            .first->second;
    if (static_cast<std::size_t>(id) == sums.size()) sums.push_back(0);
    sums[static_cast<std::size_t>(id)] += static_cast<int>(is) - static_cast<int>(was);
    difference.push_back(static_cast<double>(is) - static_cast<double>(was));
    cluster.push_back(id);
  }
  const ClusteredMean mean = clustered_difference(difference, cluster);
  row.n = mean.n_samples;
  row.n_clusters = mean.n_clusters;
  row.difference = mean.mean;
  row.p = sign_flip_p(sums);
  return row;
}

bool is_regression(int n, int net_drop, double p) {
  return p < kAlpha && net_drop > 0 && net_drop >= kFloor * n;
}

// How many more samples, each of a cluster of its own, would have had to regress.
int detectable_drop(const PairedRow& row, const std::vector<Pair>& pairs, GateMetric metric,
                    std::size_t n_tests) {
  std::map<std::string, int> by_cluster;
  for (const Pair& pair : pairs)
    by_cluster[pair.candidate->cluster] += static_cast<int>(holds(metric, *pair.candidate)) -
                                           static_cast<int>(holds(metric, *pair.base));
  std::vector<int> sums;
  for (const auto& [name, sum] : by_cluster) sums.push_back(sum);
  const int net = row.n_base - row.n_candidate;
  for (int more = 1; more <= row.n_candidate; ++more) {
    sums.push_back(-1);
    if (is_regression(row.n, net + more, sign_flip_p(sums) * static_cast<double>(n_tests)))
      return more;
  }
  return row.n + 1;  // not even if all had
}

// Holm 1979: the k-th smallest of m is multiplied by m − k, and never below the one before.
void adjust(std::vector<PairedRow>& rows) {
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rows[a].p < rows[b].p; });
  double least = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    PairedRow& row = rows[order[k]];
    least = std::max(least, std::min(1.0, row.p * static_cast<double>(rows.size() - k)));
    row.p_holm = least;
  }
}

std::string place_of(const PairedRow& row) {
  return fmt::format("{}/{}{}", row.suite, row.arm, row.language.empty() ? "" : "/" + row.language);
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
  f.first_difference = static_cast<int>(
      std::mismatch(b.ids.begin(), b.ids.end(), c.ids.begin(), c.ids.end()).first - b.ids.begin());
  f.regressed = regressed;
  return f;
}

}  // namespace

Comparison compare(std::span<const Sample> base, std::span<const Sample> candidate) {
  Comparison out;
  struct Key {
    std::string suite, arm, language;
    bool operator==(const Key&) const = default;
  };
  std::vector<std::pair<Key, std::vector<Pair>>> groups;  // in the order of the samples
  const auto add = [&](const Key& key, const Pair& pair) {
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const auto& group) { return group.first == key; });
    if (it == groups.end()) it = groups.insert(groups.end(), {key, {}});
    it->second.push_back(pair);
  };
  std::vector<Flip> fixed;
  for (const Pair& pair : pairs_of(base, candidate)) {
    const Sample& c = *pair.candidate;
    if (!pair.base->ran() || !c.ran()) continue;
    ++out.n_pairs;
    out.n_same_tokens += pair.base->ids == c.ids;
    const bool was = holds(GateMetric::kAccuracy, *pair.base), is = holds(GateMetric::kAccuracy, c);
    out.n_both_wrong += looks_at(GateMetric::kAccuracy, c) && !was && !is;
    if (was && !is) out.flips.push_back(flip_of(pair, true));
    if (is && !was) fixed.push_back(flip_of(pair, false));
    if (c.gated) add({c.suite, c.arm, ""}, pair);  // what the model is known not to do is churn
  }
  const auto n_totals = groups.size();
  for (std::size_t i = 0; i < n_totals; ++i)
    for (const Pair& pair : std::vector<Pair>(groups[i].second))
      add({groups[i].first.suite, groups[i].first.arm, pair.candidate->language}, pair);
  out.flips.insert(out.flips.end(), fixed.begin(), fixed.end());

  std::vector<std::vector<Pair>> pairs_of_row;
  std::vector<GateMetric> metric_of_row;
  for (const GateMetric metric : {GateMetric::kAccuracy, GateMetric::kClosed})
    for (const auto& [key, pairs] : groups) {
      const bool thinks = std::any_of(pairs.begin(), pairs.end(), [](const Pair& p) {
        return p.base->n_thinking_tokens + p.candidate->n_thinking_tokens > 0;
      });
      // Where thinking is closed by force, a trace a little over the budget is no loss.
      const bool forced = std::any_of(pairs.begin(), pairs.end(), [](const Pair& p) {
        return p.base->forced_close || p.candidate->forced_close;
      });
      if (metric == GateMetric::kClosed && (!thinks || forced)) continue;
      std::vector<Pair> seen;  // not what nobody judges
      std::copy_if(pairs.begin(), pairs.end(), std::back_inserter(seen), [&](const Pair& p) {
        return looks_at(metric, *p.base) && looks_at(metric, *p.candidate);
      });
      if (seen.empty()) continue;
      PairedRow row = row_of(metric, seen);
      row.suite = key.suite;
      row.arm = key.arm;
      row.language = key.language;
      out.rows.push_back(std::move(row));
      pairs_of_row.push_back(std::move(seen));
      metric_of_row.push_back(metric);
    }
  adjust(out.rows);
  for (std::size_t i = 0; i < out.rows.size(); ++i) {
    PairedRow& row = out.rows[i];
    const int net = row.n_base - row.n_candidate;
    row.regressed = is_regression(row.n, net, row.p_holm);
    row.detectable = detectable_drop(row, pairs_of_row[i], metric_of_row[i], out.rows.size());
    if (row.regressed)
      out.regressions.push_back(fmt::format(
          "{}: {} fell from {} to {} of {} against the baseline ({} regressed, {} fixed; p = "
          "{:.2g} after Holm)",
          place_of(row), row.metric, row.n_base, row.n_candidate, row.n, row.n_regressed,
          row.n_fixed, row.p_holm));
  }
  return out;
}

std::string not_comparable(const Json& base_run, const Json& candidate_run,
                           std::span<const Sample> base, std::span<const Sample> candidate) {
  if (const std::string status = base_run.value("status", ""); status != "complete")
    return fmt::format("the baseline's status is \"{}\": finish it with --resume first", status);
  const Json &b = base_run.at("plan"), &c = candidate_run.at("plan");
  for (const auto& [key, value] : c.items())
    if (!b.contains(key) || b.at(key) != value)
      return fmt::format(
          "the baseline's plan differs in \"{}\" ({} against {}): run it again with the options of "
          "this run",
          key, b.value(key, Json()).dump().substr(0, 80), value.dump().substr(0, 80));
  std::map<std::string, const Sample*> by_key;
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

Json to_json(const Comparison& comparison) {
  Json rows = Json::array(), flips = Json::array();
  for (const PairedRow& r : comparison.rows)
    rows.push_back({{"suite", r.suite},
                    {"arm", r.arm},
                    {"language", r.language},
                    {"metric", r.metric},
                    {"n", r.n},
                    {"n_clusters", r.n_clusters},
                    {"n_base", r.n_base},
                    {"n_candidate", r.n_candidate},
                    {"n_regressed", r.n_regressed},
                    {"n_fixed", r.n_fixed},
                    {"difference", r.difference.estimate},
                    {"lo", r.difference.lo},
                    {"hi", r.difference.hi},
                    {"p", r.p},
                    {"p_holm", r.p_holm},
                    {"detectable", r.detectable},
                    {"regressed", r.regressed}});
  for (const Flip& f : comparison.flips)
    flips.push_back({{"key", f.key},
                     {"language", f.language},
                     {"kind", f.kind},
                     {"question", f.question},
                     {"expected", f.expected},
                     {"base_class", f.base_class},
                     {"candidate_class", f.candidate_class},
                     {"base_answer", f.base_answer},
                     {"candidate_answer", f.candidate_answer},
                     {"first_difference", f.first_difference},
                     {"regressed", f.regressed}});
  return {{"n_pairs", comparison.n_pairs},
          {"n_same_tokens", comparison.n_same_tokens},
          {"n_both_wrong", comparison.n_both_wrong},
          {"alpha", kAlpha},
          {"floor", kFloor},
          {"rows", rows},
          {"flips", flips}};
}

}  // namespace assay::harness
