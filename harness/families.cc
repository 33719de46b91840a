#include "harness/families.h"

#include <algorithm>
#include <map>

namespace assay::harness {
namespace {

struct Family {
  std::vector<std::size_t> tests;  // by p, the smallest first
  double p = 1;                    // of the family: that nothing in it changed
  double factor = 1;               // what comparing it with other families costs
  double adjusted = 1;
};

// P(some test of the family has a p of at most `t`), if nothing in it changed: the union bound.
double any_at_most(std::span<const FamilyTest> tests, std::span<const std::size_t> family,
                   double t) {
  double sum = 0;
  for (const std::size_t i : family) sum += tests[i].at_most(t);
  return std::min(1.0, sum);
}

std::vector<Family> families_of(std::span<const FamilyTest> tests) {
  std::map<std::string, Family> by_name;
  for (std::size_t i = 0; i < tests.size(); ++i) by_name[tests[i].family].tests.push_back(i);
  std::vector<Family> out;
  for (auto& [name, family] : by_name) {
    std::stable_sort(family.tests.begin(), family.tests.end(),
                     [&](std::size_t a, std::size_t b) { return tests[a].p < tests[b].p; });
    family.p = any_at_most(tests, family.tests, tests[family.tests.front()].p);
    out.push_back(std::move(family));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Family& a, const Family& b) { return a.p < b.p; });
  return out;
}

// P(family p <= t): a family p is never below its smallest test's.
double reaches(std::span<const FamilyTest> tests, const Family& family, double t) {
  return std::min(t, any_at_most(tests, family.tests, t));
}

}  // namespace

std::vector<double> adjust_in_families(std::span<const FamilyTest> tests) {
  std::vector<Family> families = families_of(tests);
  double least = 0;
  for (std::size_t k = 0; k < families.size(); ++k) {
    Family& family = families[k];
    double sum = family.p;
    for (std::size_t other = k + 1; other < families.size(); ++other)
      sum += reaches(tests, families[other], family.p);
    family.factor = sum / family.p;
    family.adjusted = least = std::max(least, std::min(1.0, sum));
  }
  std::vector<double> out(tests.size(), 1.0);
  for (const Family& family : families) {
    double within = 0;
    std::span<const std::size_t> rest = family.tests;
    for (; !rest.empty(); rest = rest.subspan(1)) {
      within = std::max(within, any_at_most(tests, rest, tests[rest.front()].p));
      out[rest.front()] = std::min(1.0, std::max(family.adjusted, within * family.factor));
    }
  }
  return out;
}

double adjusted_bound(std::span<const FamilyTest> tests, std::size_t index, double p,
                      const std::function<bool(std::size_t)>& shared) {
  std::map<std::string, std::vector<std::size_t>> others;
  double within = 0;
  for (std::size_t i = 0; i < tests.size(); ++i) {
    if (tests[i].family == tests[index].family)
      within += i == index || shared(i) ? p : tests[i].at_most(p);
    else
      others[tests[i].family].push_back(i);
  }
  within = std::min(1.0, within);
  double sum = within;
  for (const auto& [name, family] : others)
    sum += std::min(within, any_at_most(tests, family, within));
  return std::min(1.0, sum);
}

}  // namespace assay::harness
