#include "harness/group_testing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

namespace assay::harness {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int> up_to(int n) {
  std::vector<int> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

struct Found {
  std::vector<int> items;
  bool any = false, is_minimal = false;
  int n_tests = 0;
};

// `turns` says it of a set; `limit` tests at most.
template <class Turns>
Found search(const std::vector<int>& order, const Turns& turns, int limit = 1 << 30) {
  Found out;
  const Oracle oracle = [&](std::span<const int> items) -> Result<std::optional<bool>> {
    if (out.n_tests == limit) return std::nullopt;
    ++out.n_tests;
    EXPECT_TRUE(std::is_sorted(items.begin(), items.end()));
    return turns(std::set<int>(items.begin(), items.end()));
  };
  const auto found = find_minimal_set(order, oracle);
  EXPECT_TRUE(found.has_value());
  if (*found) {
    out.any = true;
    out.items = (*found)->items;
    out.is_minimal = (*found)->is_minimal;
  }
  return out;
}

TEST(GroupTesting, OneItemIsFoundInAboutTwiceTheLogarithm) {
  for (int culprit = 0; culprit < 100; ++culprit) {
    const Found f = search(up_to(100), [&](const std::set<int>& s) { return s.contains(culprit); });
    EXPECT_THAT(f.items, ElementsAre(culprit));
    EXPECT_TRUE(f.is_minimal);
    // All, 7 prefixes, and 2 halves for each of 6 or 7 halvings, and the empty set.
    EXPECT_LE(f.n_tests, 1 + 7 + 14 + 1) << culprit;
  }
}

TEST(GroupTesting, ASuspectThatIsRightIsFoundAtOnce) {
  std::vector<int> order = up_to(100);
  std::swap(order[0], order[73]);
  const Found f = search(order, [](const std::set<int>& s) { return s.contains(73); });
  EXPECT_THAT(f.items, ElementsAre(73));
  EXPECT_EQ(f.n_tests, 3) << "all, the suspect, none";
}

TEST(GroupTesting, TwoThatAreNeededTogetherAreBothFound) {
  for (const auto& [a, b] : {std::pair{0, 99}, {3, 4}, {31, 32}, {50, 90}, {98, 99}}) {
    const Found f =
        search(up_to(100), [&](const std::set<int>& s) { return s.contains(a) && s.contains(b); });
    EXPECT_THAT(f.items, ElementsAre(a, b));
    EXPECT_TRUE(f.is_minimal);
    EXPECT_LT(f.n_tests, 100);
  }
}

TEST(GroupTesting, NoneAreFoundWhereNothingIsNeededOrNothingHelps) {
  const Found always = search(up_to(10), [](const std::set<int>&) { return true; });
  EXPECT_TRUE(always.any);
  EXPECT_THAT(always.items, IsEmpty());
  const Found never = search(up_to(10), [](const std::set<int>&) { return false; });
  EXPECT_FALSE(never.any);
  EXPECT_EQ(never.n_tests, 1);
}

TEST(GroupTesting, AllAreFoundWhereAllAreNeeded) {
  const Found f = search(up_to(9), [](const std::set<int>& s) { return s.size() == 9; });
  EXPECT_EQ(f.items, up_to(9));
  EXPECT_TRUE(f.is_minimal);
}

TEST(GroupTesting, EitherOfTwoSetsIsOneSet) {
  const Found f = search(up_to(64), [](const std::set<int>& s) {
    return s.contains(60) || (s.contains(5) && s.contains(6));
  });
  EXPECT_THAT(f.items, ElementsAre(5, 6)) << "found on the way to the larger prefix, and minimal";
}

// More items can turn the answer back: whatever comes out must turn it, and none be superfluous.
TEST(GroupTesting, AnOracleThatIsNotMonotoneGivesASetThatHolds) {
  for (int seed = 1; seed <= 200; ++seed) {
    const auto turns = [&](const std::set<int>& s) {
      if (s.size() == 24) return true;
      unsigned h = 2166136261u * static_cast<unsigned>(seed);
      for (const int i : s) h = (h ^ static_cast<unsigned>(i)) * 16777619u;
      return s.size() > 2 && (h >> 16) % 3 == 0;
    };
    const Found f = search(up_to(24), turns);
    ASSERT_TRUE(f.any);
    const std::set<int> found(f.items.begin(), f.items.end());
    EXPECT_TRUE(turns(found)) << seed;
    for (const int i : f.items) {
      std::set<int> without = found;
      without.erase(i);
      EXPECT_FALSE(turns(without)) << seed << ": " << i << " can be left out";
    }
  }
}

TEST(GroupTesting, WhenTestsEndTheSetSoFarHoldsAndSaysSo) {
  const auto turns = [](const std::set<int>& s) { return s.contains(3) && s.contains(70); };
  const int n_all = search(up_to(100), turns).n_tests;
  for (int limit = 1; limit < n_all; ++limit) {
    const Found f = search(up_to(100), turns, limit);
    ASSERT_TRUE(f.any);
    EXPECT_TRUE(turns(std::set<int>(f.items.begin(), f.items.end()))) << limit;
    EXPECT_FALSE(f.is_minimal) << limit;
  }
}

TEST(GroupTesting, AnErrorOfATestIsTheErrorOfTheSearch) {
  const std::vector<int> all = up_to(3);
  const auto found =
      find_minimal_set(all, [](std::span<const int> s) -> Result<std::optional<bool>> {
        if (s.size() == 1) return fail("the disk is full");
        return true;
      });
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().message, "the disk is full");
}

}  // namespace
}  // namespace assay::harness
