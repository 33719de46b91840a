#include "harness/group_testing.h"

#include <algorithm>

namespace assay::harness {
namespace {

using Items = std::vector<int>;

class Search {
 public:
  explicit Search(const Oracle& oracle) : oracle_(oracle) {}

  bool is_over() const { return over_; }

  // False once no more tests can be made.
  Result<bool> turns(Items items) {
    std::sort(items.begin(), items.end());
    ASSAY_TRY(const std::optional<bool> answer, oracle_(items));
    over_ = over_ || !answer;
    return answer.value_or(false);
  }

  // `items` turn the answer; leaves a subset of them that does.
  Result<void> minimise(Items& items) {
    std::size_t n_parts = 2;
    while (items.size() > 1 && !over_) {
      n_parts = std::min(n_parts, items.size());
      ASSAY_TRY(const bool smaller, reduce(items, n_parts));
      if (smaller || over_) continue;
      if (n_parts == items.size()) return {};
      n_parts *= 2;
    }
    if (items.size() == 1 && !over_) {  // is anything needed at all?
      ASSAY_TRY(const bool none, turns({}));
      if (none) items.clear();
    }
    return {};
  }

 private:
  static Items part_of(const Items& items, std::size_t n_parts, std::size_t part, bool inside) {
    const std::size_t begin = items.size() * part / n_parts,
                      end = items.size() * (part + 1) / n_parts;
    Items out;
    for (std::size_t i = 0; i < items.size(); ++i)
      if ((i >= begin && i < end) == inside) out.push_back(items[i]);
    return out;
  }

  // A part that turns the answer alone, or all but a part.
  Result<bool> reduce(Items& items, std::size_t& n_parts) {
    for (const bool inside : {true, false}) {
      if (!inside && n_parts == 2) break;  // the other part, tried already
      for (std::size_t p = 0; p < n_parts; ++p) {
        Items fewer = part_of(items, n_parts, p, inside);
        ASSAY_TRY(const bool turned, turns(fewer));
        if (over_) return false;
        if (!turned) continue;
        items = std::move(fewer);
        n_parts = inside ? 2 : std::max<std::size_t>(n_parts - 1, 2);
        return true;
      }
    }
    return false;
  }

  const Oracle& oracle_;
  bool over_ = false;
};

}  // namespace

Result<std::optional<MinimalSet>> find_minimal_set(std::span<const int> order,
                                                   const Oracle& oracle) {
  Search search(oracle);
  const Items all(order.begin(), order.end());
  ASSAY_TRY(const bool all_turn, search.turns(all));
  if (!all_turn) return std::nullopt;
  Items items = all;
  for (std::size_t n = 1; n < all.size() && !search.is_over(); n *= 2) {
    Items first(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n));
    ASSAY_TRY(const bool turned, search.turns(first));
    if (!turned) continue;
    items = std::move(first);
    break;
  }
  ASSAY_TRY_VOID(search.minimise(items));
  std::sort(items.begin(), items.end());
  return MinimalSet{std::move(items), !search.is_over()};
}

}  // namespace assay::harness
