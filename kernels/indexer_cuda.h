// DSA's lightning indexer (indexer.h) on a GPU: the score of every key that a row sees, and the
// row's top_k of them. All pointers are device pointers.
//
// A score is scale · Σ_h weights_h · ReLU(q_h · k), scale = (n_heads · dim)^-½. On tensor cores a
// float32 is three bfloat16 values (split_bf16.cuh), and six of the nine products are added up: the
// others are below 2^-23 of |q_i k_i|. A sum there errs by (dim + 16) · 2^-22 of the sizes of its
// terms (gemm_cuda_test says why). The largest products have one of their own, the others, at most
// 2^-7 and 2^-14 of them, two more. With the additions of the three,
//   |q_h · k - computed| <= (dim + 24) · 2^-22 · Σ_i |q_hi k_i|,
// and the score errs by what that makes of it and (n_heads + 4) · 2^-24 · Σ_h |weights_h q_h · k|.
// Integers whose sums float32 holds are exact up to the rounding of scale. A row's scores are a
// function of its query and the keys alone, bit by bit: not of the rows beside it.
#pragma once

#include <algorithm>
#include <bit>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

struct IndexCuda {
  const float* q;        // (n_rows, n_heads, dim), rotated
  const float* weights;  // (n_rows, n_heads): of weights_proj, not yet scaled
  // What `cache`, `position` and `run` point to must have been written before the launch ahead of
  // this one: keys are fetched while that still runs.
  float* const* cache;  // (positions, dim) of each row
  const int* position;  // row r sees keys 0 … position[r]
  // Runs of rows of one sequence at consecutive positions, which share the keys that are fetched:
  // run g is rows run[g] … run[g + 1] - 1, at most index_rows_of_run of them. Null: each row alone.
  const int* run;
  int n_runs;
  int n_rows, n_heads, dim, top_k;
  int max_keys;   // of any row
  float* scores;  // (n_rows, max_keys): scratch
  int* keys;      // (n_rows, top_k): ascending positions; among equal scores the lower is chosen
  int* n_keys;    // (n_rows)
  float* margin;  // (n_rows): k-th largest minus the next; +inf where all are selected
};

// Rows with no more than top_k keys get all of them, and their scores may stay unwritten.
void index_cuda(const IndexCuda& args, CudaStream stream);

// Its two parts. Nothing but `keys`, `n_keys` and `margin` is written by the second, which reads
// `scores` and `position`; a NaN score ranks as -inf. In the first, a NaN weight makes a NaN
// score; a NaN q_h · k counts as zero, as ReLU has it in every backend.
void index_scores_cuda(const IndexCuda& args, CudaStream stream);
void select_top_k_cuda(const IndexCuda& args, CudaStream stream);

// "tensor cores", or "key by key": a thread to a key, in float32 arithmetic, for dimensions other
// than 64 and 128, and for devices that lack the shared memory. Of the current one.
const char* index_design(int n_heads, int dim);

// (row, head) pairs as tiles of 16 have them: of few heads several rows share a tile, and of others
// a row has tiles of its own.
constexpr int index_padded_heads(int n_heads) {
  return n_heads < 16 ? static_cast<int>(std::bit_ceil(static_cast<unsigned>(n_heads)))
                      : (n_heads + 15) / 16 * 16;
}
constexpr int index_rows_of_run(int n_heads) {
  constexpr int kPairs = 96;  // of a block: at most 73 KiB, so that three blocks share an H200's
  return std::max(1, kPairs / index_padded_heads(n_heads));
}

}  // namespace assay::kernels
