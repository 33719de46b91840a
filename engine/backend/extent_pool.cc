#include "engine/backend/extent_pool.h"

#include "base/check.h"

namespace assay::engine {

std::optional<int> ExtentPool::take(int n) {
  CHECK(n > 0) << n;
  int hole = 0;  // where the hole before the next extent begins
  auto next = taken_.begin();
  for (; next != taken_.end() && next->first - hole < n; ++next) hole = next->first + next->second;
  if (next == taken_.end() && size_ - hole < n) return std::nullopt;
  taken_.emplace_hint(next, hole, n);
  n_free_ -= n;
  return hole;
}

void ExtentPool::give_back(int first) {
  const auto extent = taken_.find(first);
  CHECK(extent != taken_.end()) << "nothing begins at " << first;
  n_free_ += extent->second;
  taken_.erase(extent);
}

std::vector<ExtentPool::Move> ExtentPool::compact() {
  std::vector<Move> moves;
  std::map<int, int> packed;
  int end = 0;
  for (const auto& [first, n] : taken_) {
    if (first != end) moves.push_back({first, end, n});
    packed.emplace_hint(packed.end(), end, n);
    end += n;
  }
  taken_ = std::move(packed);
  return moves;
}

}  // namespace assay::engine
