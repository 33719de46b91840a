// Many tests, few false alarms: rows of one suite are a family, and families are adjusted among
// each other after Holm. Counts of few flips are coarse tests that often cannot reach a small p at
// all; such a test costs the others nothing (Westfall and Wolfinger 1997, Tarone 1990).
// docs/design/verdicts.md has the derivation and what is guaranteed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace assay::harness {

struct FamilyTest {
  std::string family;
  double p = 1;
  // A bound on the probability, if nothing changed, of a p not above the argument: the argument
  // itself, or less where the test is coarse. Never falls.
  std::function<double(double)> at_most;
};

// An adjusted p for every test.
std::vector<double> adjust_in_families(std::span<const FamilyTest> tests);

// At most this is the adjusted p of test `index` if its own p became `p` while `shared` tests of
// its family (itself among them) may follow it and all others stay.
double adjusted_bound(std::span<const FamilyTest> tests, std::size_t index, double p,
                      const std::function<bool(std::size_t)>& shared);

}  // namespace assay::harness
