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

// Which tier each matrix of a token's experts has: kVqTiers[tier[k][part]], gate, up and down.
struct MoeBits {
  const char* name;
  int tier[8][3];
  double code_bits(int top_k) const {
    double sum = 0;
    for (int k = 0; k < top_k; ++k)
      for (const int t : tier[k])
        sum += static_cast<double>(kVqTiers[t].index_bits) / kVqTiers[t].dim;
    return sum / (3 * top_k);
  }
};
constexpr MoeBits all_of(int t) {
  MoeBits bits{kVqTiers[t].name, {}};
  for (auto& expert : bits.tier)
    for (int& part : expert) part = t;
  return bits;
}
// As GLM-5.2-VQ-1.7bit-JA: 13, 5 and 6 of 24 matrices have 1, 2 and 3 bits, on average 1.71. (How
// its own 57,600 are spread is not published; a sibling's shares are 51, 22 and 27 %.) The first
// four experts, which are micro-glm's, have 1.5.
inline constexpr MoeBits kMixture = {
    "mixture",
    {{0, 0, 0}, {0, 0, 2}, {0, 2, 0}, {3, 0, 3}, {0, 3, 0}, {2, 3, 0}, {0, 0, 3}, {3, 2, 2}}};

struct BenchVq {
  BenchVq(const VqTier& t, const std::vector<float>& book, int rows, int cols, int group,
          std::uint64_t seed = 3) {
    w.n_rows = rows, w.n_cols = cols, w.dim = t.dim, w.n_codes = t.n_codes;
    w.index_bits = t.index_bits, w.group = group;
    std::vector<std::byte>& c = codes;
    c.resize(std::size_t{4} * static_cast<std::size_t>(w.row_words()) *
             static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < c.size(); ++i)
      c[i] = static_cast<std::byte>(uniform_at(seed, 0, i) * 256);
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
