#include <cmath>

#include "kernels/indexer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/indexer_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

constexpr int kHeadsAtOnce = 4;
constexpr int kBlocksAtOnce = HWY_TARGET == HWY_AVX3 ? 4 : 1;

// Adds heads [head, head + H) to the scores of K key blocks.
template <int H, int K>
HWY_INLINE void add_heads(const IndexScoreCpuArgs& a, const float* keys, int head, V16 scale,
                          V16 (&score)[K]) {
  const int dim = a.head_dim;
  const float* q = a.q + static_cast<std::ptrdiff_t>(head) * dim;
  const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(dim) * 16;
  V16 dot[H][K];
#pragma GCC unroll 16
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
    for (int b = 0; b < K; ++b) dot[h][b] = V16::zero();
  for (int d = 0; d < dim; ++d) {
    V16 k[K];
#pragma GCC unroll 16
    for (int b = 0; b < K; ++b) k[b] = V16::load(keys + b * stride + d * 16);
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
      const V16 v = V16::set(q[h * dim + d]);
#pragma GCC unroll 16
      for (int b = 0; b < K; ++b) dot[h][b] = fma(v, k[b], dot[h][b]);
    }
  }
#pragma GCC unroll 16
  for (int h = 0; h < H; ++h) {
    const V16 w = V16::set(a.weights[head + h]);
#pragma GCC unroll 16
    for (int b = 0; b < K; ++b)  // a NaN product counts as zero: max gives its second operand
      score[b] = fma(w, max(mul(dot[h][b], scale), V16::zero()), score[b]);
  }
}

template <int K>
void score_blocks(const IndexScoreCpuArgs& a, int block) {
  const V16 scale = V16::set(1.0f / std::sqrt(static_cast<float>(a.head_dim)));
  const float* keys = a.key_blocks + static_cast<std::ptrdiff_t>(block) * a.head_dim * 16;
  V16 score[K];
#pragma GCC unroll 16
  for (int b = 0; b < K; ++b) score[b] = V16::zero();
  int head = 0;
  for (; head + kHeadsAtOnce <= a.n_heads; head += kHeadsAtOnce)
    add_heads<kHeadsAtOnce, K>(a, keys, head, scale, score);
  for (; head < a.n_heads; ++head) add_heads<1, K>(a, keys, head, scale, score);
#pragma GCC unroll 16
  for (int b = 0; b < K; ++b) score[b].store(a.scores + (block + b) * 16);
}

}  // namespace

void index_scores(const IndexScoreCpuArgs& a) {
  int block = 0;
  for (; block + kBlocksAtOnce <= a.n_blocks; block += kBlocksAtOnce)
    score_blocks<kBlocksAtOnce>(a, block);
  for (; block < a.n_blocks; ++block) score_blocks<1>(a, block);
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void index_scores_cpu(CpuTarget target, const IndexScoreCpuArgs& args) {
  ASSAY_CPU_CALL(target, index_scores, args);
}

}  // namespace assay::kernels
#endif
