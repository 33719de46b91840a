#include "harness/compare_pairs.h"

#include <tuple>
#include <unordered_map>

namespace assay::harness {

std::vector<Pair> pairs_of(std::span<const Sample> base, std::span<const Sample> candidate) {
  std::unordered_map<std::string, const Sample*> by_key;
  for (const Sample& s : base) by_key[s.key()] = &s;
  std::vector<Pair> out;
  for (const Sample& s : candidate)
    if (const auto it = by_key.find(s.key()); it != by_key.end()) out.push_back({it->second, &s});
  return out;
}

std::vector<PairGroup> group_pairs(std::span<const Pair> pairs) {
  std::vector<PairGroup> totals, by_language;
  std::map<std::tuple<std::string, std::string, std::string>, std::size_t> places;
  const auto add = [&](std::vector<PairGroup>& groups, const std::string& language,
                       const Pair& pair) {
    const Sample& s = *pair.candidate;
    const auto [place, is_new] = places.try_emplace({s.suite, s.arm, language}, groups.size());
    if (is_new) groups.push_back({s.suite, s.arm, language, {}});
    groups[place->second].pairs.push_back(pair);
  };
  for (const Pair& pair : pairs)
    if (pair.candidate->gated) add(totals, "", pair);
  for (const PairGroup& total : totals)
    for (const Pair& pair : total.pairs) add(by_language, pair.candidate->language, pair);
  totals.insert(totals.end(), by_language.begin(), by_language.end());
  return totals;
}

}  // namespace assay::harness
