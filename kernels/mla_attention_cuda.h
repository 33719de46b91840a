// Absorbed multi-head latent attention (mla_attention.h) on a GPU. All pointers are device
// pointers.
//
// A query's keys are cut into splits of mla_split_keys() consecutive entries of its own key list, a
// function of their number. A split's maximum, sum and latent are computed from nothing and folded
// into the query's state in ascending order (MlaState of mla_attention.h), so a query's bits depend
// on its key list alone: not on the queries beside it, nor on whether one block folds split after
// split or many blocks compute one each.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

// Only q may be what the launch just ahead on the stream writes; all else that is read must be
// there before that one begins.
struct MlaAttentionCuda {
  const float* q;  // (n_rows, n_heads, kv_lora + rope): absorbed | rotated, unscaled
  // Of each row: (positions, 2, kv_lora + rope) binary16, the latents' and rope keys' high halves,
  // then what is missing to float32's first 22 bits (split_half.cuh).
  const std::uint16_t* const* cache;
  const int* position;  // row r sees keys 0 … position[r] …
  const int* keys;  // … or these: (n_rows, keys_stride) ascending, n_keys[r] of them; may be null
  const int* n_keys;
  int keys_stride;
  // Runs of rows of one sequence at consecutive positions, which share the keys that are fetched:
  // run g is rows run[g] … run[g + 1] - 1, at most mla_rows_of_run of them, and not from both sides
  // of a multiple of mla_run_limit. Null: each row alone, as with `keys`.
  const int* run;
  int n_runs;
  int n_rows, n_heads, kv_lora, rope;
  float scale;
  int max_keys;  // no row has more
  bool half;     // from the high halves alone, of cache, queries and weights: 11 bits of each
  float* parts;  // mla_parts() floats of scratch: a block to a split. Null: a block for all splits
  float* out;    // (n_rows, n_heads, kv_lora)
};
void mla_attention_cuda(const MlaAttentionCuda& args, CudaStream stream);

// "split keys, clusters": 512 + 64 columns and 32 heads or more, on sm_90. "split keys, tensor
// cores". "row by row": a block to a row and head, for shapes whose latent and rope are not
// multiples of 32, and for devices that lack the shared memory. Of the current device.
const char* mla_design(int n_heads, int kv_lora, int rope);

// Floats of scratch that spread these rows' keys over the GPU; 0 where the rows fill it. Rows that
// are alone (n_runs == n_rows) go in passes, of 16 with 64 heads, so more of them need no more.
std::size_t mla_parts(int n_rows, int n_runs, int n_heads, int kv_lora, int rope, int max_keys);

// The most that a step of at most max_rows can need; with runs of up to rows_of_run, or 1.
std::size_t mla_most_parts(int max_rows, int rows_of_run, int n_heads, int kv_lora, int rope,
                           int max_keys);

constexpr int mla_rows_of_run(int n_heads) { return n_heads < 32 ? 32 / n_heads : 1; }

// So many splits fill a large GPU; a split is a multiple of kMlaSplitStep keys. With 32 heads or
// more as many as an H200 has clusters of four blocks at once, a block to a multiprocessor.
inline constexpr int kMlaSplitStep = 64;
constexpr int mla_most_splits(int n_heads) { return n_heads < 32 ? 128 : 30; }
constexpr int mla_run_limit(int n_heads) { return kMlaSplitStep * mla_most_splits(n_heads); }
constexpr int mla_split_keys(int n_heads, int n_keys) {
  return (n_keys + mla_run_limit(n_heads) - 1) / mla_run_limit(n_heads) * kMlaSplitStep;
}

inline constexpr int kMaxKvLoraCuda = 512, kMaxRopeCuda = 256;

}  // namespace assay::kernels
