// For benchmarks: layers of experts, and matrices of every tier of random codes.
#pragma once

#include <vector>

#include "base/rng.h"
#include "kernels/quantised.h"

namespace assay::kernels {

struct MoeShape {
  const char* name;
  int hidden, width, top_k, group, n_experts;
};
constexpr MoeShape kGlmMoe = {"glm-5.2", 6144, 2048, 8, 128, 256},
                   kMicroMoe = {"micro-glm", 320, 96, 4, 64, 16};

struct VqTier {
  const char* name;
  int dim, n_codes, index_bits;
};
constexpr VqTier kVqTiers[] = {
    {"1", 8, 256, 8}, {"1.5", 8, 4096, 12}, {"2", 4, 256, 8}, {"3", 4, 4096, 12}};

struct BenchVq {
  BenchVq(const VqTier& t, const std::vector<float>& book, int rows, int cols, int group) {
    w.n_rows = rows, w.n_cols = cols, w.dim = t.dim, w.n_codes = t.n_codes;
    w.index_bits = t.index_bits, w.group = group;
    std::vector<std::byte>& c = codes;
    c.resize(std::size_t{4} * static_cast<std::size_t>(w.row_words()) *
             static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < c.size(); ++i)
      c[i] = static_cast<std::byte>(uniform_at(3, 0, i) * 256);
    scales.resize(std::size_t{2} * static_cast<std::size_t>(rows) *
                  static_cast<std::size_t>(w.n_groups()));
    for (std::size_t i = 0; i < scales.size(); i += 2) {  // near 1/32 in binary16
      scales[i] = static_cast<std::byte>(uniform_at(4, 0, i) * 256);
      scales[i + 1] = std::byte{0x28};
    }
    w.codes = codes.data(), w.scales = scales.data(), w.codebook = book.data();
  }
  double bytes() const { return static_cast<double>(codes.size() + scales.size()); }
  VqMatrix w;
  std::vector<std::byte> codes, scales;
};

}  // namespace assay::kernels
