#include "kernels/project.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/project_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

// A tile is R blocks of 16 rows by T tokens, its sums in registers: at most 24 of AVX-512's 32, 10
// of AVX2's 16 (two registers to a block). One multiply-add takes four cycles and one or two start
// per cycle, so at least eight chains must be in flight: few tokens take many blocks.
constexpr bool kWide = HWY_TARGET == HWY_AVX3;
constexpr int kMaxTokens = kWide ? 12 : 5;
constexpr int blocks_at_once(int n_tokens) {
  if (kWide) return n_tokens == 1 ? 8 : n_tokens <= 4 ? 4 : 2;
  return n_tokens == 1 ? 4 : n_tokens == 2 ? 2 : 1;
}

template <int R, int T, bool kBf16>
HWY_INLINE void multiply_tile(const ProjectCpuArgs& a, int token, int block) {
  const PackedMatrix& m = *a.w;
  const int n_cols = m.n_cols();
  const float* x[T];
  for (int t = 0; t < T; ++t) x[t] = a.x[token + t];
  const std::uint32_t* words = m.block(block);
  const std::size_t step = m.step_words(block), group = m.group_words();
  // Block r of the tile: R <= 4 lie in one group, 8 are two whole groups.
  const auto at = [&](int r) HWY_ATTR { return r / 4 * group + r % 4 * std::size_t{16}; };

  V16 sum[R][T];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) sum[r][t] = V16::zero();

  if constexpr (kBf16) {
    int k = 0;
    for (; k + 1 < n_cols; k += 2, words += step) {
      if constexpr (T == 1 && !kWide) {  // each weight is used once: none waits in a register
        const V16 v0 = V16::set(x[0][k]), v1 = V16::set(x[0][k + 1]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          sum[r][0] = fma(V16::even(words + at(r)), v0, sum[r][0]);
          sum[r][0] = fma(V16::odd(words + at(r)), v1, sum[r][0]);
        }
        continue;
      }
      V16 w[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) w[r] = V16::even(words + at(r));
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const V16 v = V16::set(x[t][k]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[r][t] = fma(w[r], v, sum[r][t]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) w[r] = V16::odd(words + at(r));
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const V16 v = V16::set(x[t][k + 1]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[r][t] = fma(w[r], v, sum[r][t]);
      }
    }
    if (k < n_cols) {
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
          sum[r][t] = fma(V16::even(words + at(r)), V16::set(x[t][k]), sum[r][t]);
    }
  } else {
    const float* w = reinterpret_cast<const float*>(words);
    for (int k = 0; k < n_cols; ++k, w += step) {
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const V16 v = V16::set(x[t][k]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[r][t] = fma(V16::load(w + at(r)), v, sum[r][t]);
      }
    }
  }

#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const int row = (block + r) * 16, n = m.n_rows() - row;
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
      float* y = a.y[token + t] + row;
      if (n >= 16) {
        (a.accumulate ? add(V16::load(y), sum[r][t]) : sum[r][t]).store(y);
      } else {
        (a.accumulate ? add(V16::load_n(y, n), sum[r][t]) : sum[r][t]).store_n(y, n);
      }
    }
  }
}

// Not inlined: one small function per tile keeps the compiler's register allocation simple.
template <int R, int T>
HWY_NOINLINE void tile(const ProjectCpuArgs& a, int token, int block) {
  if (a.w->is_bf16())
    multiply_tile<R, T, true>(a, token, block);
  else
    multiply_tile<R, T, false>(a, token, block);
}

template <int T>
void all_blocks(const ProjectCpuArgs& a, int token) {
  constexpr int R = blocks_at_once(T);
  for (int block = a.first_block; block < a.last_block;) {
    const int left = a.last_block - block;
    if constexpr (R >= 8)
      if (left >= 8 && block % 4 == 0) {
        tile<8, T>(a, token, block);
        block += 8;
        continue;
      }
    if constexpr (R >= 4)
      if (left >= 4 && block % 4 == 0) {
        tile<4, T>(a, token, block);
        block += 4;
        continue;
      }
    if constexpr (R >= 2)
      if (left >= 2 && block % 2 == 0) {
        tile<2, T>(a, token, block);
        block += 2;
        continue;
      }
    tile<1, T>(a, token, block++);
  }
}

using AllBlocks = void (*)(const ProjectCpuArgs&, int);
constexpr AllBlocks kByTokens[] = {
    all_blocks<1>,  all_blocks<2>,  all_blocks<3>, all_blocks<4>, all_blocks<5>,
#if HWY_TARGET == HWY_AVX3
    all_blocks<6>,  all_blocks<7>,  all_blocks<8>, all_blocks<9>, all_blocks<10>,
    all_blocks<11>, all_blocks<12>,
#endif
};
static_assert(sizeof(kByTokens) / sizeof(kByTokens[0]) == kMaxTokens);

}  // namespace

void project(const ProjectCpuArgs& a) {
  const int n_tiles = (a.n_tokens + kMaxTokens - 1) / kMaxTokens;
  for (int i = 0; i < n_tiles; ++i) {  // tiles as even as can be: a lone token would waste loads
    const int first = a.n_tokens * i / n_tiles, last = a.n_tokens * (i + 1) / n_tiles;
    kByTokens[last - first - 1](a, first);
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void project_cpu(CpuTarget target, const ProjectCpuArgs& args) {
  ASSAY_CPU_CALL(target, project, args);
}

}  // namespace assay::kernels
#endif
