#include "engine/backend/logit_places.h"

#include <algorithm>

#include "base/check.h"

namespace assay::engine {

void LogitPlaces::clear() { std::fill(row_at_.begin(), row_at_.end(), kNobody); }

std::vector<int> LogitPlaces::put(std::span<const int> rows, std::vector<Missing>& missing) {
  CHECK(rows.size() <= row_at_.size()) << rows.size() << " rows, " << row_at_.size() << " places";
  std::vector<int> places;
  std::vector<bool> stays(row_at_.size());
  for (const int row : rows) {
    const auto found = std::find(row_at_.begin(), row_at_.end(), row);
    places.push_back(found == row_at_.end() ? kNobody : static_cast<int>(found - row_at_.begin()));
    if (found != row_at_.end()) stays[static_cast<std::size_t>(places.back())] = true;
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (places[i] != kNobody) continue;
    while (stays[next]) ++next;
    places[i] = static_cast<int>(next);
    row_at_[next++] = rows[i];
    Missing* last = missing.empty() ? nullptr : &missing.back();
    if (last != nullptr && last->row + last->n == rows[i] && last->place + last->n == places[i])
      ++last->n;
    else
      missing.push_back({rows[i], places[i], 1});
  }
  return places;
}

}  // namespace assay::engine
