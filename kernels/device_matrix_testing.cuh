// For tests: random weight matrices of every kind, with the memory that they point to.
#pragma once

#include <cuda_fp16.h>

#include <bit>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/device_matrix.h"

namespace assay::kernels {

struct Random {
  explicit Random(unsigned seed) : rng(seed) {}
  std::vector<float> floats(std::size_t n, bool integers = false) {
    std::uniform_int_distribution<int> small(-8, 8);
    std::normal_distribution<float> normal;
    std::vector<float> out(n);
    for (float& v : out) v = integers ? static_cast<float>(small(rng)) : normal(rng);
    return out;
  }
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(rng); }
  std::mt19937 rng;
};

inline std::uint16_t to_half(float v) {
  const __half h(v);
  std::uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}

// A matrix of one of the kinds with the memory it points to.
struct HostMatrix {
  std::vector<std::byte> values, scales, zeros;
  std::vector<float> codebook;
  WeightMatrix dense{};
  VqMatrix vq;
  ScaledMatrix scaled;
  enum class Kind { kDense, kVq, kScaled } kind = Kind::kDense;

  // VQ as units where `units` says how.
  DeviceMatrix upload(DeviceWeights& memory, const UnitForm& units = {}) const {
    if (units.bits > 0) return memory.add(vq, units);
    return kind == Kind::kDense ? memory.add(dense)
           : kind == Kind::kVq  ? memory.add(vq)
                                : memory.add(scaled);
  }
  // On a device, without its codebook.
  std::size_t device_size(const UnitForm& units = {}) const {
    if (units.bits > 0) return unit_bytes(vq, units);
    return kind == Kind::kDense ? device_bytes(dense)
           : kind == Kind::kVq  ? device_bytes(vq)
                                : device_bytes(scaled);
  }
  // Without a device, its codebook included.
  DeviceMatrix laid_out(const KeepBytes& keep, const UnitForm& units = {}) const {
    if (kind == Kind::kDense) return lay_out(dense, keep);
    ThreadPool pool(2);
    if (kind == Kind::kScaled) return lay_out(scaled, pool, keep);
    DeviceMatrix m = units.bits > 0 ? lay_out(vq, units, pool, keep) : lay_out(vq, keep);
    const std::vector<__half> halves(codebook.begin(), codebook.end());
    m.codebook = static_cast<const float*>(keep(codebook.data(), 4 * codebook.size()));
    m.codebook_f16 = keep(halves.data(), 2 * halves.size());
    return m;
  }
  double at(int r, int c) const {
    return kind == Kind::kDense ? static_cast<double>(weight_at(
                                      dense, static_cast<std::int64_t>(r) * dense.n_cols + c))
           : kind == Kind::kVq  ? static_cast<double>(weight_at(vq, r, c))
                                : static_cast<double>(weight_at(scaled, r, c));
  }
};

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& v) {
  std::vector<std::byte> out(v.size() * sizeof(T));
  std::memcpy(out.data(), v.data(), out.size());
  return out;
}

inline HostMatrix dense(WeightType type, int rows, int cols, bool integers, Random& random) {
  HostMatrix m;
  const std::vector<float> v =
      random.floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols), integers);
  if (type == WeightType::kF32) {
    m.values = bytes_of(v);
  } else {
    std::vector<std::uint16_t> half(v.size());
    for (std::size_t i = 0; i < v.size(); ++i)
      half[i] = type == WeightType::kF16
                    ? to_half(v[i])
                    : static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v[i]) >> 16);
    m.values = bytes_of(half);
  }
  m.dense = {m.values.data(), type, rows, cols};
  return m;
}

inline HostMatrix vq(int dim, int n_codes, int rows, int cols, int group, bool integers,
                     Random& random) {
  HostMatrix m;
  m.kind = HostMatrix::Kind::kVq;
  int bits = 0;
  while (1 << bits < n_codes) ++bits;
  m.codebook =
      random.floats(static_cast<std::size_t>(n_codes) * static_cast<std::size_t>(dim), integers);
  for (float& v : m.codebook) v = static_cast<float>(__half(v));
  m.vq = {.codes = nullptr,
          .scales = nullptr,
          .codebook = m.codebook.data(),
          .n_rows = rows,
          .n_cols = cols,
          .dim = dim,
          .n_codes = n_codes,
          .index_bits = bits,
          .n_books = 1,
          .group = group};
  std::vector<std::uint32_t> words(static_cast<std::size_t>(rows) *
                                   static_cast<std::size_t>(m.vq.row_words()));
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < m.vq.n_subvectors(); ++j) {
      const auto index = static_cast<std::uint64_t>(random.below(n_codes));
      const int bit = j * bits;
      const std::size_t word =
          static_cast<std::size_t>(r) * static_cast<std::size_t>(m.vq.row_words()) +
          static_cast<std::size_t>(bit / 32);
      words[word] |= static_cast<std::uint32_t>(index << (bit % 32));
      if (bit % 32 + bits > 32)
        words[word + 1] |= static_cast<std::uint32_t>(index >> (32 - bit % 32));
    }
  std::vector<std::uint16_t> scales;
  for (int i = 0; i < rows * m.vq.n_groups(); ++i)
    scales.push_back(
        to_half(integers ? static_cast<float>(1 << random.below(3)) : random.floats(1)[0]));
  m.values = bytes_of(words);
  m.scales = bytes_of(scales);
  m.vq.codes = m.values.data();
  m.vq.scales = m.scales.data();
  return m;
}

inline HostMatrix gptq(int bits, int rows, int cols, int group, bool integers, Random& random) {
  HostMatrix m;
  m.kind = HostMatrix::Kind::kScaled;
  m.scaled = {.kind = bits == 4 ? ScaledMatrix::Kind::kGptq4 : ScaledMatrix::Kind::kGptq8,
              .values = nullptr,
              .scales = nullptr,
              .zeros = nullptr,
              .n_rows = rows,
              .n_cols = cols,
              .group = group};
  const int per_word = 32 / bits, groups = m.scaled.n_groups();
  std::vector<std::uint32_t> values(static_cast<std::size_t>(cols / per_word * rows)),
      zeros(static_cast<std::size_t>(groups * ((rows + per_word - 1) / per_word)));
  for (std::uint32_t& w : values) w = static_cast<std::uint32_t>(random.rng());
  for (std::uint32_t& w : zeros) w = static_cast<std::uint32_t>(random.rng());
  std::vector<std::uint16_t> scales;
  for (int i = 0; i < groups * rows; ++i)
    scales.push_back(to_half(integers ? 1.0f : random.floats(1)[0] / 16));
  m.values = bytes_of(values);
  m.zeros = bytes_of(zeros);
  m.scales = bytes_of(scales);
  m.scaled.values = m.values.data();
  m.scaled.zeros = m.zeros.data();
  m.scaled.scales = m.scales.data();
  return m;
}

inline HostMatrix fp8(int rows, int cols, int group, Random& random) {
  HostMatrix m;
  m.kind = HostMatrix::Kind::kScaled;
  m.scaled = {.kind = ScaledMatrix::Kind::kFp8E4m3,
              .values = nullptr,
              .scales = nullptr,
              .zeros = nullptr,
              .n_rows = rows,
              .n_cols = cols,
              .group = group};
  for (int i = 0; i < rows * cols; ++i) {
    int code = random.below(256);
    if ((code & 0x7F) == 0x7F) code = 0;
    m.values.push_back(static_cast<std::byte>(code));
  }
  const std::size_t blocks = static_cast<std::size_t>((rows + group - 1) / group) *
                             static_cast<std::size_t>(m.scaled.n_groups());
  m.scales = bytes_of(random.floats(blocks));
  m.scaled.values = m.values.data();
  m.scaled.scales = m.scales.data();
  return m;
}

}  // namespace assay::kernels
