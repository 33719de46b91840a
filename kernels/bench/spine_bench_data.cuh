// For benchmarks: a spine's matrices of random weights, in every kind that it comes in.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "kernels/device_matrix_testing.cuh"

namespace assay::kernels {

// bf16, gptq8, gptq4 or fp8, whose scales serve 128 columns, or 64 where 128 do not divide them.
// Made once: a benchmark is called several times until its time is known.
inline const HostMatrix& spine_matrix(const std::string& kind, int n_rows, int n_cols) {
  static std::map<std::tuple<std::string, int, int>, HostMatrix> all;
  const auto [known, is_new] = all.try_emplace({kind, n_rows, n_cols});
  HostMatrix& m = known->second;
  if (!is_new) return m;
  Random random(1);
  const int group = n_cols % 128 == 0 ? 128 : 64;
  if (kind == "fp8") return m = fp8(n_rows, n_cols, group, random);
  if (kind != "bf16")
    return m = gptq(kind == "gptq8" ? 8 : 4, n_rows, n_cols, group, false, random);
  // Some random rows, again and again: values do not change the time.
  constexpr int kRandomRows = 64;
  m = dense(WeightType::kBf16, kRandomRows, n_cols, false, random);
  const std::vector<std::byte> rows = m.values;
  while (m.values.size() < rows.size() / kRandomRows * static_cast<std::size_t>(n_rows))
    m.values.insert(m.values.end(), rows.begin(), rows.end());
  m.dense = {m.values.data(), WeightType::kBf16, n_rows, n_cols};
  return m;
}

}  // namespace assay::kernels
