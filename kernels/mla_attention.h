// Multi-head latent attention in absorbed form (DeepSeek-V2, arXiv 2405.04434, §2.1): queries are
// scored against the cached latent and rope key themselves, and values are accumulated in latent
// space.
#pragma once

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

}  // namespace assay::kernels
