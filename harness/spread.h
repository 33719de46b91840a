// Some of many, spread over all of them.
#pragma once

#include <cstddef>
#include <vector>

namespace assay::harness {

// `n` of them, the first of each of n equal parts; all where n is not fewer.
template <class T>
std::vector<T> spread_over(const std::vector<T>& all, std::size_t n) {
  if (n >= all.size()) return all;
  std::vector<T> some;
  for (std::size_t i = 0; i < n; ++i) some.push_back(all[i * all.size() / n]);
  return some;
}

}  // namespace assay::harness
