// GPTQ to 4 or 8 bits (Frantar 2022, arXiv:2210.17323), packed as the v1 format of
// docs/formats/vq.md.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/quantize/hessian.h"

namespace assay::engine {

struct GptqScalarOptions {
  int bits = 8;  // 4 or 8
  int group = 128;
  Stop* stop = nullptr;  // asked for every 64 rows of 128 columns, and of what is packed
};

struct ScalarEncoding {
  std::vector<std::uint32_t> qweight;  // (n_cols * bits / 32, n_rows)
  std::vector<std::uint32_t> qzeros;   // (n_groups, n_rows * bits / 32): zero − 1
  std::vector<std::uint16_t> scales;   // (n_groups, n_rows), binary16
  double relative_error = 0;           // Σ |(w − q) R|² of Σ |w R|², damping included
};

// w (n_rows, n_cols). A group's grid spans its weights and zero, or the part of that range with the
// least squared error. Errors: sizes that do not fill words, weights that are not finite.
// That [n_rows, n_cols] fills whole words of `bits` (4 or 8) in both directions.
Result<void> check_packable(int n_rows, int n_cols, int bits, std::string_view name);

Result<ScalarEncoding> gptq_scalar(const float* w, int n_rows, int n_cols,
                                   const HessianFactor& factor, const GptqScalarOptions& options,
                                   ThreadPool& pool, std::string_view name);

}  // namespace assay::engine
