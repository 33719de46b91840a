#include "engine/quantize/allocate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace assay::engine {
namespace {

// A step of one item to its next option on the lower convex hull of (cost, error).
struct Step {
  double slope;  // error saved per cost
  double cost, saved;
  int item, option;
};

// Options that some multiplier would choose, cheapest first.
std::vector<int> hull_of(const AllocationItem& item) {
  std::vector<int> order(item.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const AllocationOption &x = item[static_cast<std::size_t>(a)],
                           &y = item[static_cast<std::size_t>(b)];
    return x.cost != y.cost ? x.cost < y.cost : x.error < y.error;
  });
  const auto at = [&](int i) -> const AllocationOption& {
    return item[static_cast<std::size_t>(i)];
  };
  const auto slope = [&](int a, int b) {
    return (at(a).error - at(b).error) / (at(b).cost - at(a).cost);
  };
  std::vector<int> hull;
  for (const int i : order) {
    if (!hull.empty() && at(i).error >= at(hull.back()).error) continue;  // dearer and no better
    while (hull.size() > 1 && slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), i))
      hull.pop_back();
    hull.push_back(i);
  }
  return hull;
}

Result<void> check(const std::vector<AllocationItem>& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].empty()) return fail("allocate: item {} has no option", i);
    for (const AllocationOption& o : items[i])
      if (!(o.cost >= 0) || !(o.error >= 0) || !std::isfinite(o.cost) || !std::isfinite(o.error))
        return fail(
            "allocate: item {} has an option of cost {} and error {}, expected finite values of 0 "
            "or more",
            i, o.cost, o.error);
  }
  return {};
}

}  // namespace

Result<Allocation> allocate(const std::vector<AllocationItem>& items, double budget) {
  ASSAY_TRY_VOID(check(items));
  Allocation a;
  std::vector<Step> steps;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::vector<int> hull = hull_of(items[i]);
    const auto at = [&](std::size_t h) -> const AllocationOption& {
      return items[i][static_cast<std::size_t>(hull[h])];
    };
    a.option.push_back(hull[0]);
    a.total_cost += at(0).cost;
    a.total_error += at(0).error;
    for (std::size_t h = 1; h < hull.size(); ++h) {
      const double cost = at(h).cost - at(h - 1).cost, saved = at(h - 1).error - at(h).error;
      steps.push_back({saved / cost, cost, saved, static_cast<int>(i), hull[h]});
    }
  }
  if (a.total_cost > budget * (1 + 1e-12))
    return fail(
        "allocate: the cheapest choice costs {:.4g}, the budget is {:.4g}: allow more bits or "
        "cheaper tiers",
        a.total_cost, budget);
  // Slopes fall along every hull, so steepest first never takes an item's steps out of order.
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& x, const Step& y) { return x.slope > y.slope; });
  a.lower_bound = a.total_error;
  bool is_relaxed = true;  // until the first step that does not fit
  std::vector<bool> is_closed(items.size(), false);
  for (const Step& s : steps) {
    const double left = budget - a.total_cost;
    const bool fits = s.cost <= left * (1 + 1e-12);
    if (is_relaxed) {
      a.lower_bound -= fits ? s.saved : s.saved * std::max(0.0, left) / s.cost;
      is_relaxed = fits;
    }
    if (!fits || is_closed[static_cast<std::size_t>(s.item)]) {
      is_closed[static_cast<std::size_t>(s.item)] = true;
      continue;
    }
    a.option[static_cast<std::size_t>(s.item)] = s.option;
    a.total_cost += s.cost;
    a.total_error -= s.saved;
  }
  return a;
}

}  // namespace assay::engine
