#include "harness/attribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace assay::harness {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Four layers of an attention with two projections and of four experts with three; and a head.
std::vector<SitePath> model() {
  std::vector<SitePath> out;
  for (int l = 0; l < 4; ++l) {
    const std::string layer = fmt::format("layer {}", l);
    out.push_back({layer, "attention", "q"});
    out.push_back({layer, "attention", "o"});
    for (int e = 0; e < 4; ++e)
      for (const char* projection : {"gate", "up", "down"})
        out.push_back({layer, "experts", fmt::format("expert {}", e), projection});
  }
  out.push_back({"lm_head"});
  return out;
}

std::set<std::string> names(const std::vector<SitePath>& paths, std::span<const int> sites) {
  std::set<std::string> out;
  for (const int s : sites) {
    std::string name;
    for (const std::string& part : paths[static_cast<std::size_t>(s)])
      name += (name.empty() ? "" : "/") + part;
    out.insert(name);
  }
  return out;
}

struct Planted {
  std::vector<std::set<std::string>> jointly;  // any of these sets reverts
  int n_asked = 0;

  bool reverts(const std::set<std::string>& sites) const {
    for (const auto& set : jointly)
      if (std::includes(sites.begin(), sites.end(), set.begin(), set.end())) return true;
    return false;
  }
  Attribution search(int max_tests = 1000) {
    const std::vector<SitePath> paths = model();
    const AttributionOracle oracle{
        .reverts = [&](std::span<const int> sites) -> Result<std::optional<bool>> {
          ++n_asked;
          return reverts(names(paths, sites));
        },
        .recovery = [&](std::span<const int> sites) -> Result<double> {  // the share of any set
          double best = 0;
          for (const auto& set : jointly) {
            double n = 0;
            for (const std::string& name : names(paths, sites)) n += set.contains(name) ? 1 : 0;
            best = std::max(best, n / static_cast<double>(set.size()));
          }
          return best;
        },
        .on_level = {}};
    auto out = attribute(paths, oracle, max_tests);
    EXPECT_TRUE(out.has_value());
    return *std::move(out);
  }
};

TEST(Attribution, GoesFromTheLayerToTheProjection) {
  Planted planted{{{"layer 2/experts/expert 3/down"}}};
  const Attribution a = planted.search();
  ASSERT_EQ(a.levels.size(), 4u);
  EXPECT_THAT(a.levels[0].found, ElementsAre("layer 2"));
  EXPECT_THAT(a.levels[1].found, ElementsAre("layer 2, experts"));
  EXPECT_THAT(a.levels[2].found, ElementsAre("layer 2, experts, expert 3"));
  EXPECT_THAT(a.levels[3].found, ElementsAre("layer 2, experts, expert 3, down"));
  EXPECT_EQ(a.levels[2].suspects[0].name, "layer 2, experts, expert 3");
  EXPECT_EQ(a.levels[2].suspects[0].recovery, 1);
  EXPECT_TRUE(a.is_minimal);
  EXPECT_THAT(names_of(model(), a.sites), ElementsAre("layer 2, experts, expert 3, down"));
  EXPECT_EQ(a.n_tests, planted.n_asked);
  EXPECT_EQ(a.n_tests, 6) << "all, none, and the first suspect of each level";
}

TEST(Attribution, AWholeExpertIsNamedAsOne) {
  Planted planted{{{"layer 1/experts/expert 0/gate", "layer 1/experts/expert 0/up",
                    "layer 1/experts/expert 0/down"}}};
  const Attribution a = planted.search();
  EXPECT_EQ(a.sites.size(), 3u);
  EXPECT_THAT(names_of(model(), a.sites), ElementsAre("layer 1, experts, expert 0"));
}

TEST(Attribution, TwoLayersThatAreNeededTogether) {
  Planted planted{{{"layer 0/attention/q", "layer 3/experts/expert 1/up"}}};
  const Attribution a = planted.search();
  EXPECT_THAT(names_of(model(), a.sites),
              ElementsAre("layer 0, attention, q", "layer 3, experts, expert 1, up"));
  EXPECT_TRUE(a.is_minimal);
}

TEST(Attribution, ASiteWithoutALayerIsFoundAtTheFirstLevel) {
  Planted planted{{{"lm_head"}}};
  const Attribution a = planted.search();
  EXPECT_THAT(names_of(model(), a.sites), ElementsAre("lm_head"));
  EXPECT_EQ(a.levels.size(), 1u) << "nothing is finer";
}

TEST(Attribution, SaysWhereNothingReverts) {
  Planted planted{{{"elsewhere"}}};
  const Attribution a = planted.search();
  EXPECT_FALSE(a.reverts);
  EXPECT_THAT(a.sites, IsEmpty());
  EXPECT_EQ(a.n_tests, 1);
}

TEST(Attribution, ALimitOfTestsLeavesASetThatReverts) {
  for (int limit = 1; limit < 8; ++limit) {
    Planted planted{{{"layer 0/attention/q", "layer 3/experts/expert 1/up"}}};
    const Attribution a = planted.search(limit);
    EXPECT_TRUE(a.reverts);
    EXPECT_FALSE(a.is_minimal);
    EXPECT_TRUE(planted.reverts(names(model(), a.sites))) << limit;
    EXPECT_LE(a.n_tests, limit);
  }
}

}  // namespace
}  // namespace assay::harness
