#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/indexer.h"

namespace assay::kernels {

void select_top_k(const float* scores, int n, int k, std::vector<int>* positions, float* margin) {
  positions->resize(static_cast<std::size_t>(n));
  std::iota(positions->begin(), positions->end(), 0);
  if (margin != nullptr) *margin = std::numeric_limits<float>::infinity();
  if (k >= n) return;
  // A NaN (a broken model) ranks last: comparing with it would break the order that nth_element
  // relies on.
  const auto rank = [&](int i) {
    return std::isnan(scores[i]) ? -std::numeric_limits<float>::infinity() : scores[i];
  };
  const auto before = [&](int a, int b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; };
  std::nth_element(positions->begin(), positions->begin() + k, positions->end(), before);
  if (margin != nullptr) {
    const int first_left_out = (*positions)[k];
    float last_chosen = std::numeric_limits<float>::infinity();
    for (int i = 0; i < k; ++i) last_chosen = std::min(last_chosen, scores[(*positions)[i]]);
    *margin = last_chosen - scores[first_left_out];
  }
  positions->resize(static_cast<std::size_t>(k));
  std::sort(positions->begin(), positions->end());
}

}  // namespace assay::kernels
