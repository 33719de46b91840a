// Vector quantisation of one matrix with error feedback (GPTVQ, van Baalen 2024, arXiv:2402.15319),
// to the codes of docs/formats/vq.md.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/hessian.h"

namespace assay::engine {

struct GptqVqOptions {
  int group = 128;         // columns that share a scale, a multiple of the codebook's dim
  bool compensate = true;  // false: nearest codewords of the weights as they are, no refit
  int beam = 1;            // codings of a row that a sweep goes on with (beam_sweep.h)
  int n_refits = 1;        // further sweeps with scales refitted; a row keeps its best
  // Then so many passes of coordinate descent (vq_descent.h) on this Hessian, the factor's own.
  int n_descents = 0;
  const Hessian* hessian = nullptr;
  Stop* stop = nullptr;  // asked before 64 rows go through 128 columns
};

struct VqEncoding {
  std::vector<std::uint16_t> indices;  // (n_rows, n_cols / dim)
  std::vector<std::uint16_t> scales;   // (n_rows, n_groups), binary16
  double error = 0;           // Σ |(w − q) R|² over rows: the output error, damping included
  double relative_error = 0;  // that of the Σ |w R|²
};

// w (n_rows, n_cols). A scale begins as the standard deviation of its weights. Each sub-vector
// takes the codeword that is nearest in the metric R_bb R_bbᵀ of its own columns, given the errors
// of those before it in the factor's order, which holds whole sub-vectors. Same bits for any pool.
// Errors: weights that are not finite, by row and column.
Result<VqEncoding> gptq_vq(const float* w, int n_rows, int n_cols, const Codebook& codebook,
                           const HessianFactor& factor, const GptqVqOptions& options,
                           ThreadPool& pool, std::string_view name);

}  // namespace assay::engine
