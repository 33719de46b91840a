// One option for every item within a budget: the multiple-choice knapsack of mixed-bit
// quantisation.
#pragma once

#include <vector>

#include "base/result.h"

namespace assay::engine {

struct AllocationOption {
  double cost, error;
};
using AllocationItem = std::vector<AllocationOption>;

struct Allocation {
  std::vector<int> option;  // of each item
  double total_cost = 0, total_error = 0;
  double lower_bound = 0;  // of the error of any choice within the budget (Lagrangian dual)
};

// Least total error with a total cost of at most `budget`: the Lagrangian's choice, then what is
// left of the budget spent on the options that lower the error most per cost (Shoham and Gersho
// 1988). The gap to the best choice is at most one item's step. Errors: an item without options, a
// budget below the cheapest choice, values that are not finite or negative.
Result<Allocation> allocate(const std::vector<AllocationItem>& items, double budget);

}  // namespace assay::engine
