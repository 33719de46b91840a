// DSA's lightning indexer (DeepSeek-V3.2; transformers' glm_moe_dsa): which keys a query may attend
// to.
#pragma once

#include <vector>

namespace assay::kernels {

struct IndexScoreArgs {
  const float* q;        // (n_heads, head_dim), rotated
  const float* weights;  // (n_heads): weights_proj(x) * n_heads^-0.5
  const float* k;        // (n_keys, head_dim), normed and rotated
  int n_keys, n_heads, head_dim;
  float* scores;  // (n_keys): Σ_h weights_h · ReLU(q_h · k_t · head_dim^-0.5)
};

void index_scores_reference(const IndexScoreArgs& args);

// The positions of the k largest scores, ascending; among equal scores the lower position wins. k
// >= n gives all. *margin (may be nullptr) is the k-th largest minus the next, +inf when k >= n.
void select_top_k(const float* scores, int n, int k, std::vector<int>* positions, float* margin);

}  // namespace assay::kernels
