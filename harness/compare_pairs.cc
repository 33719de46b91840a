#include "harness/compare_pairs.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>

namespace assay::harness {
namespace {

// As suites list them; others after these.
std::size_t language_rank(std::string_view language) {
  constexpr std::string_view kOrder[] = {"ja", "en", "zh"};
  return static_cast<std::size_t>(std::find(std::begin(kOrder), std::end(kOrder), language) -
                                  std::begin(kOrder));
}

}  // namespace

std::vector<Pair> pairs_of(std::span<const Sample> base, std::span<const Sample> candidate) {
  std::unordered_map<std::string, const Sample*> by_key;
  for (const Sample& s : base) by_key[s.key()] = &s;
  std::vector<Pair> out;
  for (const Sample& s : candidate)
    if (const auto it = by_key.find(s.key()); it != by_key.end()) out.push_back({it->second, &s});
  return out;
}

std::vector<PairGroup> group_pairs(std::span<const Pair> pairs, std::span<const std::string> arms) {
  std::vector<PairGroup> totals;
  std::map<std::string, std::size_t, std::less<>> places;
  std::vector<std::pair<std::string, Pair>> by_key;
  for (const Pair& pair : pairs) {
    const Sample& s = *pair.candidate;
    if (!s.gated) continue;
    by_key.emplace_back(s.key(), pair);
    const auto [place, is_new] = places.try_emplace(s.suite + "/" + s.arm, totals.size());
    if (is_new) totals.push_back({s.suite, s.arm, "", {}});
  }
  std::sort(by_key.begin(), by_key.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [key, pair] : by_key) {
    const Sample& s = *pair.candidate;
    totals[places.at(s.suite + "/" + s.arm)].pairs.push_back(pair);
  }
  const auto rank = [&](const PairGroup& g) {
    return std::find(arms.begin(), arms.end(), g.suite + "/" + g.arm) - arms.begin();
  };
  std::stable_sort(totals.begin(), totals.end(),
                   [&](const PairGroup& a, const PairGroup& b) { return rank(a) < rank(b); });
  std::vector<PairGroup> out = totals;
  for (const PairGroup& total : totals) {
    std::map<std::pair<std::size_t, std::string>, PairGroup> by_language;
    for (const Pair& pair : total.pairs) {
      const std::string& language = pair.candidate->language;
      PairGroup& group = by_language[{language_rank(language), language}];
      group.suite = total.suite;
      group.arm = total.arm;
      group.language = language;
      group.pairs.push_back(pair);
    }
    for (auto& [key, group] : by_language) out.push_back(std::move(group));
  }
  return out;
}

}  // namespace assay::harness
