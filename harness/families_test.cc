#include "harness/families.h"

#include <gtest/gtest.h>

#include "base/hypothesis.h"
#include "base/rng.h"

namespace assay::harness {
namespace {

FamilyTest smooth(std::string family, double p) {
  return {std::move(family), p, [](double t) { return t; }};
}
// Can have a p of `least`, of 4 · least, and of 1.
FamilyTest coarse(std::string family, double p, double least) {
  return {std::move(family), p, [least](double t) {
            return t >= 1 ? 1.0 : t >= 4 * least ? 4 * least : t >= least ? least : 0.0;
          }};
}

TEST(Families, OfOneSmoothTestEachAreHolms) {
  const std::vector<double> p = {0.04, 0.001, 0.5, 0.013, 0.013};
  std::vector<FamilyTest> tests;
  for (std::size_t i = 0; i < p.size(); ++i) tests.push_back(smooth(std::to_string(i), p[i]));
  const auto adjusted = adjust_in_families(tests), expected = holm(p);
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-15) << i;
}

TEST(Families, OneFamilyIsHolmWithinIt) {
  const std::vector<double> p = {0.04, 0.001, 0.013};
  std::vector<FamilyTest> tests;
  for (const double one : p) tests.push_back(smooth("a", one));
  const auto adjusted = adjust_in_families(tests), expected = holm(p);
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-15) << i;
}

TEST(Families, TestsThatCannotReachASmallPCostNothing) {
  std::vector<FamilyTest> tests = {smooth("a", 0.004)};
  for (int i = 0; i < 50; ++i) tests.push_back(coarse("a", 1, 0.25));
  for (int i = 0; i < 50; ++i) tests.push_back(coarse("b", 1, 0.01));
  EXPECT_DOUBLE_EQ(adjust_in_families(tests)[0], 0.004);
  tests.push_back(coarse("a", 1, 0.001));  // 0.004 is one of its values
  EXPECT_DOUBLE_EQ(adjust_in_families(tests)[0], 0.008);
  // The family's p is 0.008 now, and with a probability of 0.003 family c would have shown one as
  // small.
  tests.push_back(coarse("c", 1, 0.003));
  EXPECT_DOUBLE_EQ(adjust_in_families(tests)[0], 0.011);
}

TEST(Families, ByHand) {
  // a: 0.001 of 2 smooth tests is 0.002; b: 0.01 of 1. Of both families: 0.004, then 0.01.
  const std::vector<FamilyTest> tests = {smooth("a", 0.001), smooth("a", 0.3), smooth("b", 0.01)};
  const auto adjusted = adjust_in_families(tests);
  EXPECT_DOUBLE_EQ(adjusted[0], 0.004);
  EXPECT_DOUBLE_EQ(adjusted[1], 0.6) << "0.3 of one test that is left, times two families";
  EXPECT_DOUBLE_EQ(adjusted[2], 0.01);
}

TEST(Families, TheBoundIsNeverBelowWhatComesOut) {
  for (std::uint64_t draw = 0; draw < 300; ++draw) {
    std::vector<FamilyTest> tests;
    for (std::uint64_t i = 0; i < 12; ++i) {
      const double p = uniform_at(1, draw, i);
      const std::string family = i < 5 ? "a" : i < 9 ? "b" : "c";
      tests.push_back(i % 2 == 0 ? smooth(family, p) : coarse(family, p < 0.04 ? 0.01 : 1, 0.01));
    }
    const double p = 0.02 * uniform_at(2, draw, 0);
    const double bound = adjusted_bound(tests, 2, p, [](std::size_t i) { return i < 2; });
    for (const std::size_t i : {0, 1, 2}) tests[i] = smooth("a", p);
    EXPECT_GE(bound, adjust_in_families(tests)[2] - 1e-12) << draw;
  }
}

// Nights in which nothing changed: replies flip to and fro, the same problem in three languages
// together. Some family is accused on at most a share alpha of them.
TEST(Families, AccuseAtMostAsOftenAsTheySay) {
  constexpr double kAccuse = 0.05;
  constexpr int kNights = 3000;
  int n_accused = 0, n_unadjusted = 0;
  for (int night = 0; night < kNights; ++night) {
    std::uint64_t next = 0;
    const auto uniform = [&] { return uniform_at(77, static_cast<std::uint64_t>(night), next++); };
    std::vector<std::pair<std::string, SignFlip>> rows;
    for (const auto& [suite, churn] : {std::pair{"a", 0.4}, {"b", 0.1}, {"c", 0.02}})
      for (int arm = 0; arm < 2; ++arm) {
        SignFlip total, ja, en, zh;
        for (int problem = 0; problem < 40; ++problem) {
          int sum = 0;
          const double shared = uniform();
          for (SignFlip* language : {&ja, &en, &zh}) {
            const double u = uniform() < 0.5 ? shared : uniform();
            const int flip = u < churn / 2 ? -1 : u < churn ? 1 : 0;
            language->add(flip);
            sum += flip;
          }
          total.add(sum);
        }
        for (const SignFlip& row : {total, ja, en, zh}) rows.emplace_back(suite, row);
      }
    std::vector<FamilyTest> tests;
    for (const auto& [suite, row] : rows)
      tests.push_back({suite, row.p(), [&row = row](double p) { return row.at_most(p); }});
    const auto adjusted = adjust_in_families(tests);
    n_accused +=
        std::any_of(adjusted.begin(), adjusted.end(), [](double p) { return p < kAccuse; });
    n_unadjusted +=
        std::any_of(tests.begin(), tests.end(), [](const auto& t) { return t.p < kAccuse; });
  }
  // R: qbinom(1 - 1e-4, 3000, 0.05) = 196: more is no accident of the seed.
  EXPECT_LE(n_accused, 196);
  EXPECT_GT(n_accused, 30) << "nor is it bought with deafness";
  EXPECT_GT(n_unadjusted, 196) << "and without it this test would fail";
}

}  // namespace
}  // namespace assay::harness
