#include <algorithm>
#include <vector>

#include "kernels/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mla_attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/aligned_array.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/exp-inl.h"
#include "kernels/mla_block-inl.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {

void mla_merge(int n_pairs, int kv_lora, const MlaState& state, const MlaState& later) {
  const int n_lanes = mla_lanes(n_pairs), stride = mla_latent_stride(kv_lora);
  for (int lane = 0; lane < n_lanes; lane += 8) {
    const V8 before = V8::load(state.max + lane), block = V8::load(later.max + lane);
    const V8 both = max(block, before);
    const V8 keep = exp_f32(sub(before, both)), take = exp_f32(sub(block, both));
    const V8 sum = fma(V8::load(later.sum + lane), take, mul(V8::load(state.sum + lane), keep));
    float maxima[8], sums[8], keeps[8], takes[8];
    both.store(maxima);
    sum.store(sums);
    keep.store(keeps);
    take.store(takes);
    for (int i = 0; i < std::min(8, n_pairs - lane); ++i) {
      const int p = lane + i;
      if (later.sum[p] == 0) continue;
      state.max[p] = maxima[i];
      state.sum[p] = sums[i];
      const V16 k = V16::set(keeps[i]), t = V16::set(takes[i]);
      float* latent = state.latent + static_cast<std::ptrdiff_t>(p) * stride;
      const float* add_latent = later.latent + static_cast<std::ptrdiff_t>(p) * stride;
      for (int c = 0; c < stride; c += 16)
        fma(V16::load(add_latent + c), t, mul(V16::load(latent + c), k)).store(latent + c);
    }
  }
}

void mla_finish(int n_pairs, int kv_lora, const MlaState& state) {
  const int stride = mla_latent_stride(kv_lora);
  for (int p = 0; p < n_pairs; ++p) {
    const V16 sum = V16::set(state.sum[p]);
    float* latent = state.latent + static_cast<std::ptrdiff_t>(p) * stride;
    for (int c = 0; c < stride; c += 16) div(V16::load(latent + c), sum).store(latent + c);
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void mla_block_cpu(CpuTarget target, const MlaBlockArgs& args) {
  ASSAY_CPU_CALL(target, mla_block, args);
}
void mla_merge_cpu(CpuTarget target, int n_pairs, int kv_lora, const MlaState& state,
                   const MlaState& later) {
  ASSAY_CPU_CALL(target, mla_merge, n_pairs, kv_lora, state, later);
}
void mla_finish_cpu(CpuTarget target, int n_pairs, int kv_lora, const MlaState& state) {
  ASSAY_CPU_CALL(target, mla_finish, n_pairs, kv_lora, state);
}

void mla_transpose_queries(const float* q, int n_pairs, int n_dims, float* transposed) {
  const int n_lanes = mla_lanes(n_pairs);
  for (int i = 0; i < n_dims; ++i) {
    float* out = transposed + static_cast<std::ptrdiff_t>(i) * n_lanes;
    for (int p = 0; p < n_pairs; ++p) out[p] = q[static_cast<std::ptrdiff_t>(p) * n_dims + i];
    for (int p = n_pairs; p < n_lanes; ++p) out[p] = 0;
  }
}

void store_key_lane(const float* key, int n_dims, int position, float* key_blocks) {
  float* lane =
      key_blocks + static_cast<std::ptrdiff_t>(position / 16) * n_dims * 16 + position % 16;
  for (int i = 0; i < n_dims; ++i) lane[i * 16] = key[i];
}

void mla_attention_cpu(CpuTarget target, const MlaAttentionArgs& a) {
  const int dims = a.kv_lora + a.rope, n_lanes = mla_lanes(a.n_heads);
  const int stride = mla_latent_stride(a.kv_lora);
  AlignedArray<float> q(static_cast<std::size_t>(dims) * n_lanes), softmax(2 * n_lanes),
      latent(static_cast<std::size_t>(a.n_heads) * stride), scratch(mla_block_scratch(a.n_heads));
  mla_transpose_queries(a.q, a.n_heads, dims, q.data());
  const MlaState state{softmax.data(), softmax.data() + n_lanes, latent.data()};
  for (int first = 0; first < a.n_keys; first += kMlaKeyBlock) {
    const int n = std::min(kMlaKeyBlock, a.n_keys - first);
    const float* rows[kMlaKeyBlock];
    for (int j = 0; j < n; ++j)
      rows[j] =
          a.kv +
          static_cast<std::ptrdiff_t>(a.keys != nullptr ? a.keys[first + j] : first + j) * dims;
    const std::vector<int> n_visible(static_cast<std::size_t>(n_lanes), n);
    mla_block_cpu(target, {.q = q.data(),
                           .n_pairs = a.n_heads,
                           .rows = rows,
                           .key_blocks = nullptr,
                           .n_keys = n,
                           .n_visible = n_visible.data(),
                           .kv_lora = a.kv_lora,
                           .rope = a.rope,
                           .scale = a.scale,
                           .first = first == 0,
                           .state = state,
                           .scratch = scratch.data()});
  }
  mla_finish_cpu(target, a.n_heads, a.kv_lora, state);
  for (int h = 0; h < a.n_heads; ++h)
    std::copy_n(latent.data() + static_cast<std::ptrdiff_t>(h) * stride, a.kv_lora,
                a.out + static_cast<std::ptrdiff_t>(h) * a.kv_lora);
}

}  // namespace assay::kernels
#endif
