// Multi-head latent attention in absorbed form (DeepSeek-V2, arXiv 2405.04434, §2.1): queries are
// scored against the cached latent and rope key themselves, and values are accumulated in latent
// space.
#pragma once

#include <cstddef>

#include "kernels/cpu_target.h"

namespace assay::kernels {

struct MlaAttentionArgs {
  const float* q;  // (n_heads, kv_lora + rope): q_nope · W_k (absorbed) | rotated q_rope, unscaled
  const float* kv;  // cache, (positions, kv_lora + rope): normed latent | rotated k_rope
  const int* keys;  // (n_keys) ascending positions, or nullptr for 0 … n_keys - 1
  int n_keys;
  int n_heads, kv_lora, rope;
  float scale;  // qk_head^-0.5
  float* out;   // (n_heads, kv_lora): softmax(q·kv * scale) · latent
};

void mla_attention_reference(const MlaAttentionArgs& args);

// The cpu kernel. A query's keys are cut into blocks of kMlaKeyBlock consecutive entries of its own
// key list, counted from the list's start. A block's maximum, sum and latent are computed from
// nothing and folded into the query's state in ascending order of block by one formula:
//   m = max(M, m_b); S = S·exp(M - m) + s_b·exp(m_b - m); A = A·exp(M - m) + a_b·exp(m_b - m)
// So a query's bits depend on its key list alone: not on the queries beside it, nor on whether one
// thread folds block after block (mla_block_cpu) or several compute blocks that are folded later
// (mla_merge_cpu).
inline constexpr int kMlaKeyBlock = 64;

// Softmax so far of some (query, head) pairs. A pair is a lane; n_lanes is n_pairs rounded up to 8.
struct MlaState {
  float *max, *sum;  // (n_lanes)
  float* latent;     // (n_pairs, mla_latent_stride): Σ exp(score - max) · latent
};
constexpr int mla_lanes(int n_pairs) { return (n_pairs + 7) / 8 * 8; }
constexpr int mla_latent_stride(int kv_lora) { return (kv_lora + 15) / 16 * 16; }

struct MlaBlockArgs {
  // Lanes are pairs: q (kv_lora + rope, n_lanes), lane p is pair p's query. Or, where key_blocks is
  // given, lanes are keys: q (n_pairs, kv_lora + rope). Each is the faster where its lanes are full
  // and the other's are not: many queries, or one query on consecutive keys. The bits are the same.
  const float* q;
  int n_pairs;
  const float* const* rows;  // (n_keys) cache rows: latent | rope key
  const float* key_blocks;  // (kMlaKeyBlock / 16, kv_lora + rope, 16), the same keys transposed, or
                            // nullptr; then every pair sees all n_keys
  int n_keys;               // 1 … kMlaKeyBlock
  const int* n_visible;     // (n_lanes): pair p sees the first n_visible[p] keys; if none (<= 0),
                            // its state stays as it is
  int kv_lora, rope;
  float scale;
  bool first;      // the state is empty: a pair that sees no key gets max -inf and sum 0
  MlaState state;  // in and out
  float* scratch;  // mla_block_scratch(n_pairs) floats
};
constexpr std::size_t mla_block_scratch(int n_pairs) {
  return static_cast<std::size_t>(kMlaKeyBlock + 8 + 4) *
         static_cast<std::size_t>(mla_lanes(n_pairs));
}
void mla_block_cpu(CpuTarget target, const MlaBlockArgs& args);

// Folds the later state into `state`. A pair whose later sum is 0 saw no key there and stays as it
// is (one that saw a key has a sum of at least 1: its largest score gives exp(0)).
void mla_merge_cpu(CpuTarget target, int n_pairs, int kv_lora, const MlaState& state,
                   const MlaState& later);
// latent /= sum: the attention's output.
void mla_finish_cpu(CpuTarget target, int n_pairs, int kv_lora, const MlaState& state);
// q (n_pairs, kv_lora + rope) to (kv_lora + rope, n_lanes), zeros in the lanes that pad.
void mla_transpose_queries(const float* q, int n_pairs, int n_dims, float* transposed);
// Writes a key of n_dims values into its lane of key_blocks (positions / 16, n_dims, 16).
void store_key_lane(const float* key, int n_dims, int position, float* key_blocks);

// One query, as mla_attention_reference.
void mla_attention_cpu(CpuTarget target, const MlaAttentionArgs& args);

}  // namespace assay::kernels
