// For benchmarks: a spine's matrices of random weights, in every kind that it comes in, and many
// copies of one on the device.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/device_matrix_testing.cuh"

namespace assay::kernels {

inline double file_bytes(const HostMatrix& m) {
  return static_cast<double>(m.values.size() + m.scales.size() + m.zeros.size());
}

// Whether `got` is row r of m times x, but for the roundings of a float32 chain.
inline bool is_product(const HostMatrix& m, int r, const float* x, float got) {
  const int n_cols = m.kind == HostMatrix::Kind::kDense ? m.dense.n_cols : m.scaled.n_cols;
  ReferenceSum sum;
  for (int c = 0; c < n_cols; ++c) sum.add(m.at(r, c), static_cast<double>(x[c]));
  return sum.is_near(got, n_cols);
}

inline std::vector<std::byte> near_64th(bool is_f32, std::size_t n, Random& random) {
  std::vector<float> values = random.floats(n);
  for (float& v : values) v /= 64;
  if (is_f32) return bytes_of(values);
  std::vector<std::uint16_t> high;
  for (const float v : values)
    high.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v) >> 16));
  return bytes_of(high);
}

// f32, bf16, gptq8, gptq4 or fp8, whose scales serve 128 columns, or the half or quarter that
// divides them. Weights of f32, bf16 and GPTQ are near 1/64, as a model's are: what follows a
// product neither saturates nor drowns what it is added to. Made once: a benchmark is called
// several times.
inline const HostMatrix& spine_matrix(const std::string& kind, int n_rows, int n_cols) {
  static std::map<std::tuple<std::string, int, int>, HostMatrix> all;
  const auto [known, is_new] = all.try_emplace({kind, n_rows, n_cols});
  HostMatrix& m = known->second;
  if (!is_new) return m;
  Random random(1);
  const int group = n_cols % 128 == 0 ? 128 : n_cols % 64 == 0 ? 64 : 32;
  if (kind == "fp8") return m = fp8(n_rows, n_cols, group, random);
  if (kind.starts_with("gptq")) {
    m = gptq(kind == "gptq8" ? 8 : 4, n_rows, n_cols, group, false, random);
    // Binary16 from 2^-13 or 2^-9, and up to a quarter more: integers are some hundred, or some
    // ten.
    const auto high = static_cast<std::byte>(kind == "gptq8" ? 0x08 : 0x18);
    for (std::size_t i = 1; i < m.scales.size(); i += 2) m.scales[i] = high;
    return m;
  }
  // Some random rows, again and again: values do not change the time.
  constexpr int kRandomRows = 64;
  const bool is_f32 = kind == "f32";
  const std::vector<std::byte> bytes = near_64th(is_f32, area(kRandomRows, n_cols), random);
  const std::size_t n_bytes = (is_f32 ? 4 : 2) * area(n_rows, n_cols);
  while (m.values.size() < n_bytes) m.values.insert(m.values.end(), bytes.begin(), bytes.end());
  m.values.resize(n_bytes);
  m.dense = {m.values.data(), is_f32 ? WeightType::kF32 : WeightType::kBf16, n_rows, n_cols};
  return m;
}

// n copies of a dense or scaled matrix: laid out and uploaded once, then copied on the device.
class MatrixCopies {
 public:
  MatrixCopies(const HostMatrix& host, int n) {
    first_ = host.laid_out([&](const void* from, std::size_t n_bytes) -> const void* {
      arrays_.emplace_back(static_cast<const std::byte*>(from), n_bytes, n);
      return arrays_.back().at(0);
    });
  }
  DeviceMatrix at(int i) const {
    DeviceMatrix m = first_;
    for (const Copies<std::byte>& array : arrays_) {
      if (first_.values == array.at(0)) m.values = array.at(i);
      if (first_.scales == array.at(0)) m.scales = array.at(i);
    }
    return m;
  }

 private:
  std::vector<Copies<std::byte>> arrays_;
  DeviceMatrix first_;
};

}  // namespace assay::kernels
