#include "base/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/shortened.h"

namespace assay {

constexpr std::size_t kMostKnown = 12;

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view written, std::span<const std::string> candidates) {
  std::string best;
  int best_distance = 0;
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(written, candidate);
    const int allowed =
        std::max(2, static_cast<int>(std::max(written.size(), candidate.size())) / 3);
    // Two edits turn any two-letter word into any other: something must be left of it.
    const int longest = static_cast<int>(std::max(written.size(), candidate.size()));
    if (distance > allowed || distance >= longest) continue;
    if (best.empty() || distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string suggestion(std::string_view written, std::span<const std::string> candidates) {
  const std::string best = nearest(written, candidates);
  if (!best.empty()) return fmt::format(" Did you mean '{}'?", best);
  if (candidates.empty()) return "";
  return fmt::format(" Known: {}.", shortened(candidates, ", ", kMostKnown));
}

}  // namespace assay
