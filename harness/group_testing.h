// Group testing: of n items, a smallest set that by itself turns a test's answer, found by putting
// whole groups to the test at a time. Pure.
// Source: A. Zeller and R. Hildebrandt, Simplifying and isolating failure-inducing input, IEEE
// Transactions on Software Engineering 28 (2002), the algorithm ddmin.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace assay::harness {

// Whether these items, in ascending order, turn the answer. No value: no more tests can be made
// (interrupted, or the limit of tests is reached).
using Oracle = std::function<Result<std::optional<bool>>(std::span<const int> items)>;

struct MinimalSet {
  std::vector<int> items;  // ascending; they turn the answer
  // No single one of them can be left out. False: the tests ended before that was shown.
  bool is_minimal = false;
};

// The items of `order` are tried in that order, the most suspect first: prefixes of 1, 2, 4 … items
// until one turns the answer, then ddmin within it. An oracle need not be monotone (more items may
// turn the answer back): the result turns the answer whatever it does elsewhere, but there may be
// smaller sets. Nothing if not even all items together turn it.
Result<std::optional<MinimalSet>> find_minimal_set(std::span<const int> order,
                                                   const Oracle& oracle);

}  // namespace assay::harness
