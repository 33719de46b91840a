#include "harness/attribution.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

namespace assay::harness {
namespace {

constexpr const char* kLevels[] = {"layer", "part", "expert or tensor", "tensor"};
constexpr std::size_t kDepth = std::size(kLevels);

std::string prefix_name(const SitePath& path, std::size_t depth) {
  return fmt::format("{}", fmt::join(std::span(path).first(std::min(depth, path.size())), ", "));
}

struct Group {
  std::string name;
  std::vector<int> sites;
};

// In order of first appearance.
std::vector<Group> groups_at(std::span<const SitePath> paths, std::span<const int> sites,
                             std::size_t depth) {
  std::vector<Group> out;
  std::map<std::string, std::size_t> index_of;
  for (const int s : sites) {
    const std::string name = prefix_name(paths[static_cast<std::size_t>(s)], depth);
    const auto [it, is_new] = index_of.emplace(name, out.size());
    if (is_new) out.push_back({name, {}});
    out[it->second].sites.push_back(s);
  }
  return out;
}

std::vector<int> sites_of(const std::vector<Group>& groups, std::span<const int> chosen) {
  std::vector<int> out;
  for (const int g : chosen) {
    const auto& sites = groups[static_cast<std::size_t>(g)].sites;
    out.insert(out.end(), sites.begin(), sites.end());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// Asks each set once, and no more than `max_tests`.
class Memory {
 public:
  Memory(const Oracle& oracle, int max_tests) : oracle_(oracle), max_tests_(max_tests) {}
  Result<std::optional<bool>> ask(const std::vector<int>& sites) {
    if (const auto known = answers_.find(sites); known != answers_.end()) return known->second;
    if (n_tests_ >= max_tests_) return std::nullopt;
    ASSAY_TRY(const std::optional<bool> answer, oracle_(sites));
    if (!answer) return std::nullopt;
    ++n_tests_;
    answers_[sites] = *answer;
    return answer;
  }
  int n_tests() const { return n_tests_; }

 private:
  const Oracle& oracle_;
  const int max_tests_;
  int n_tests_ = 0;
  std::map<std::vector<int>, bool> answers_;
};

}  // namespace

Result<Attribution> attribute(std::span<const SitePath> paths, const AttributionOracle& oracle,
                              int max_tests) {
  Attribution out;
  Memory memory(oracle.reverts, max_tests);
  for (std::size_t i = 0; i < paths.size(); ++i) out.sites.push_back(static_cast<int>(i));
  for (std::size_t depth = 1; depth <= kDepth; ++depth) {
    const std::vector<Group> groups = groups_at(paths, out.sites, depth);
    if (depth > 1 && groups.size() == groups_at(paths, out.sites, depth - 1).size())
      continue;  // nothing is finer here
    AttributionLevel level{.name = kLevels[depth - 1], .n_groups = static_cast<int>(groups.size())};
    if (oracle.on_level) oracle.on_level(level.name, groups.size());
    std::vector<int> order;
    std::vector<double> recovery;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      order.push_back(static_cast<int>(g));
      ASSAY_TRY(const double of_group, oracle.recovery(groups[g].sites));
      recovery.push_back(of_group);
      ++out.n_recoveries;
    }
    const auto recovery_of = [&](int g) { return recovery[static_cast<std::size_t>(g)]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return recovery_of(a) > recovery_of(b); });
    for (const int g : order)
      level.suspects.push_back({groups[static_cast<std::size_t>(g)].name, recovery_of(g)});

    const int n_before = memory.n_tests();
    ASSAY_TRY(const auto found, find_minimal_set(order, [&](std::span<const int> chosen) {
                return memory.ask(sites_of(groups, chosen));
              }));
    level.n_tests = memory.n_tests() - n_before;
    out.n_tests = memory.n_tests();
    if (!found) {  // at the first level only: later ones begin with what turned the answer
      out.sites.clear();
      out.levels.push_back(std::move(level));
      return out;
    }
    out.reverts = true;
    out.is_minimal = found->is_minimal;
    out.sites = sites_of(groups, found->items);
    for (const int g : found->items)
      level.found.push_back(groups[static_cast<std::size_t>(g)].name);
    ASSAY_TRY(level.recovery, oracle.recovery(out.sites));
    ++out.n_recoveries;
    out.levels.push_back(std::move(level));
    if (!out.is_minimal) break;
  }
  return out;
}

std::vector<std::string> names_of(std::span<const SitePath> paths, std::span<const int> chosen) {
  std::vector<std::string> out;
  std::vector<int> rest(chosen.begin(), chosen.end());
  std::vector<int> all;
  for (std::size_t i = 0; i < paths.size(); ++i) all.push_back(static_cast<int>(i));
  for (std::size_t depth = 1; depth <= kDepth && !rest.empty(); ++depth) {
    std::map<std::string, std::size_t> n_of;
    for (const Group& group : groups_at(paths, all, depth)) n_of[group.name] = group.sites.size();
    for (const Group& group : groups_at(paths, rest, depth)) {
      if (group.sites.size() != n_of[group.name]) continue;
      out.push_back(group.name);
      std::erase_if(rest, [&](int s) {
        return std::find(group.sites.begin(), group.sites.end(), s) != group.sites.end();
      });
    }
  }
  return out;
}

}  // namespace assay::harness
