// DSA's lightning indexer (DeepSeek-V3.2; transformers' glm_moe_dsa): which keys a query may attend
// to.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu_target.h"

namespace assay::kernels {

struct IndexScoreArgs {
  const float* q;        // (n_heads, head_dim), rotated
  const float* weights;  // (n_heads): weights_proj(x) * n_heads^-0.5
  const float* k;        // (n_keys, head_dim), normed and rotated
  int n_keys, n_heads, head_dim;
  float* scores;  // (n_keys): Σ_h weights_h · ReLU(q_h · k_t · head_dim^-0.5)
};

void index_scores_reference(const IndexScoreArgs& args);

// The cpu kernel keeps keys transposed in blocks of 16, so that lanes are keys: (blocks, head_dim,
// 16). A score is one chain over head_dim per head, then one over ascending heads.
struct IndexScoreCpuArgs {
  const float* q;           // (n_heads, head_dim), rotated
  const float* weights;     // (n_heads)
  const float* key_blocks;  // (n_blocks, head_dim, 16): see store_key_lane of mla_attention.h
  int n_blocks, n_heads, head_dim;
  float* scores;  // (n_blocks * 16)
};
void index_scores_cpu(CpuTarget target, const IndexScoreCpuArgs& args);

// The positions of the k largest scores, ascending; among equal scores the lower position wins. k
// >= n gives all. *margin (may be nullptr) is the k-th largest minus the next, +inf when k >= n.
void select_top_k(const float* scores, int n, int k, std::vector<int>* positions, float* margin);

// The same selection, in about one pass: a histogram over the scores' leading bits finds the k-th.
// `positions` has room for min(k, n).
class TopKSelector {
 public:
  void select(const float* scores, int n, int k, int* positions, float* margin);

 private:
  std::vector<std::uint32_t> histogram_, order_;
  std::vector<std::uint64_t> candidates_;
};

}  // namespace assay::kernels
