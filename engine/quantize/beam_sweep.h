// A wider search in the column sweep: of every row the `width` best codings so far go on, where
// GPTQ-VQ goes on with one (beam search, Lowerre 1976).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "engine/quantize/codebook.h"
#include "engine/quantize/hessian.h"

namespace assay::engine {

struct BeamArgs {
  const float* w;       // (n_rows, n_cols)
  const float* scales;  // (n_rows, n_groups), n_groups = n_cols / group, rounded up
  int n_rows, n_cols, group;
  int width;  // is_beam_width
  Stop* stop = nullptr;
};

// A power of two, 64 at most: a row's codings fill neighbouring lanes of a sweep.
bool is_beam_width(int width);

// Codes (n_rows, n_cols / dim). At each sub-vector every coding of a row proposes its `width` best
// codewords; the `width` of least |(w − q) R|², over the columns done, go on, the earlier coding
// and the lower code among equals. A group of zeros, where all codes mean the same, has one
// proposal. The same bits for any pool. Takes `width` times a sweep's work, and memory for 4,096
// codings at a time: (8 + 3 / dim) · 4,096 · n_cols bytes.
Result<std::vector<std::uint16_t>> beam_codes(const BeamArgs& args, const Codebook& book,
                                              const HessianFactor& factor, ThreadPool& pool);

}  // namespace assay::engine
