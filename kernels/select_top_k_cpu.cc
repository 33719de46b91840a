#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/indexer.h"

namespace assay::kernels {
namespace {

constexpr int kBinBits = 11;
constexpr std::uint32_t kBins = 1u << kBinBits;

// An integer that ascends as the score descends; +0 and -0 are equal, NaN ranks as -inf.
std::uint32_t descending(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(
      std::isnan(score) ? -std::numeric_limits<float>::infinity() : score + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7FFFFFFFu;
}
std::uint32_t bin_of(std::uint32_t order) { return order >> (32 - kBinBits); }

float score_of(std::uint32_t order) {
  return std::bit_cast<float>((order & 0x80000000u) != 0 ? order : ~order & 0x7FFFFFFFu);
}

}  // namespace

void TopKSelector::select(const float* scores, int n, int k, int* positions, float* margin) {
  if (margin != nullptr) *margin = std::numeric_limits<float>::infinity();
  if (k >= n) {
    for (int i = 0; i < n; ++i) positions[i] = i;
    return;
  }
  CHECK(k > 0) << k;
  order_.resize(static_cast<std::size_t>(n));
  histogram_.assign(kBins, 0);
  for (int i = 0; i < n; ++i) {
    order_[i] = descending(scores[i]);
    ++histogram_[bin_of(order_[i])];
  }
  std::uint32_t bin = 0;
  int before = 0;  // scores in better bins
  while (before + static_cast<int>(histogram_[bin]) < k)
    before += static_cast<int>(histogram_[bin++]);

  // Of the k-th score's bin the first `wanted` by (score, position).
  const int wanted = k - before;
  candidates_.clear();
  std::uint32_t best_after = std::numeric_limits<std::uint32_t>::max();  // in worse bins
  for (int i = 0; i < n; ++i) {
    const std::uint32_t b = bin_of(order_[i]);
    if (b == bin)
      candidates_.push_back(static_cast<std::uint64_t>(order_[i]) << 32 |
                            static_cast<std::uint32_t>(i));
    else if (b > bin)
      best_after = std::min(best_after, order_[i]);
  }
  std::nth_element(candidates_.begin(), candidates_.begin() + (wanted - 1), candidates_.end());
  const std::uint64_t last = candidates_[static_cast<std::size_t>(wanted) - 1];
  if (margin != nullptr) {
    for (std::size_t i = static_cast<std::size_t>(wanted); i < candidates_.size(); ++i)
      best_after = std::min(best_after, static_cast<std::uint32_t>(candidates_[i] >> 32));
    *margin = score_of(static_cast<std::uint32_t>(last >> 32)) - score_of(best_after);
  }
  int out = 0;
  for (int i = 0; i < n; ++i)
    if ((static_cast<std::uint64_t>(order_[i]) << 32 | static_cast<std::uint32_t>(i)) <= last)
      positions[out++] = i;
  CHECK(out == k) << out << " of " << k;
}

}  // namespace assay::kernels
