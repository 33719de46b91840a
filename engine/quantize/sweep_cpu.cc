#include "engine/quantize/sweep_cpu.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/quantize/sweep_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

// Accumulators of a tile of push_errors: as many as the registers hold.
#if HWY_TARGET == HWY_AVX3
constexpr int kTileVectors = 2, kTileCols = 8;
#else
constexpr int kTileVectors = 1, kTileCols = 4;
#endif
// Errors that a tile takes at once: their lanes and their part of the panel stay in the caches.
constexpr int kTileErrors = 128;

template <int kVectors, int kCols>
HWY_INLINE void push_tile(const engine::PushArgs& a, int first, int n, int col, int lane) {
  V16 sum[kCols][kVectors];
  for (int c = 0; c < kCols; ++c)
    for (int v = 0; v < kVectors; ++v)
      sum[c][v] = V16::load(a.sums + (col + c) * a.n_lanes + lane + 16 * v);
  const float* errors = a.errors + static_cast<std::int64_t>(first) * a.n_lanes + lane;
  const float* panel = a.panel + static_cast<std::int64_t>(first) * a.panel_stride + col;
  for (int k = 0; k < n; ++k, errors += a.n_lanes, panel += a.panel_stride) {
    V16 e[kVectors];
    for (int v = 0; v < kVectors; ++v) e[v] = V16::load(errors + 16 * v);
    for (int c = 0; c < kCols; ++c) {
      const V16 r = V16::set(panel[c]);
      for (int v = 0; v < kVectors; ++v) sum[c][v] = fma(e[v], r, sum[c][v]);
    }
  }
  for (int c = 0; c < kCols; ++c)
    for (int v = 0; v < kVectors; ++v)
      sum[c][v].store(a.sums + (col + c) * a.n_lanes + lane + 16 * v);
}

template <int kVectors>
void push_lanes(const engine::PushArgs& a, int first, int n, int lane) {
  int col = 0;
  for (; col + kTileCols <= a.n_cols; col += kTileCols)
    push_tile<kVectors, kTileCols>(a, first, n, col, lane);
  for (; col < a.n_cols; ++col) push_tile<kVectors, 1>(a, first, n, col, lane);
}

template <int kDim>
HWY_INLINE V16 score_of(const V16* u, const float* codeword) {
  V16 score = V16::set(codeword[kDim]);
  for (int i = 0; i < kDim; ++i) score = fma(u[i], V16::set(codeword[i]), score);
  return score;
}

// u comes negated, so that the score is one chain of additions.
template <int kDim, int kVectors>
void nearest_lanes(const engine::NearestArgs& a, int lane) {
  V16 u[kVectors][kDim], best[kVectors], index[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 0; i < kDim; ++i)
      u[v][i] = sub(V16::zero(), V16::load(a.u + i * a.n_lanes + lane + 16 * v));
    best[v] = V16::set(std::numeric_limits<float>::infinity());
    index[v] = V16::zero();
  }
  const float* codeword = a.table;
  for (int k = 0; k < a.n_codes; ++k, codeword += kDim + 1) {
    const V16 number = V16::set(static_cast<float>(k));
    for (int v = 0; v < kVectors; ++v) {
      const V16 score = score_of<kDim>(u[v], codeword);
      index[v] = if_less(score, best[v], number, index[v]);
      best[v] = if_less(score, best[v], score, best[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    best[v].store(a.score + lane + 16 * v);
    index[v].store(a.index + lane + 16 * v);
  }
}

template <int kDim>
void nearest_of_dim(const engine::NearestArgs& a) {
  constexpr int kVectors = kDim <= 4 ? 4 : 2;
  int lane = 0;
  for (; lane + 16 * kVectors <= a.n_lanes; lane += 16 * kVectors)
    nearest_lanes<kDim, kVectors>(a, lane);
  for (; lane < a.n_lanes; lane += 16) nearest_lanes<kDim, 1>(a, lane);
}

template <int kWidth>
HWY_INLINE bool any_less(Register<kWidth> a, Register<kWidth> b) {
  return !hn::AllFalse(typename Register<kWidth>::D(), hn::Lt(a.v, b.v));
}
#if HWY_TARGET != HWY_AVX3
HWY_INLINE bool any_less(V16 a, V16 b) { return any_less(a.lo, b.lo) || any_less(a.hi, b.hi); }
#endif

// Lanes whose n best are in order, with a codeword that follows all of theirs.
HWY_INLINE void insert_score(V16 score, V16 number, V16* best, V16* index, int n) {
  for (int j = n - 1; j > 0; --j) {
    // Behind those that it beats, at its place, or not at all.
    index[j] = if_less(score, best[j - 1], index[j - 1], if_less(score, best[j], number, index[j]));
    best[j] = if_less(score, best[j - 1], best[j - 1], if_less(score, best[j], score, best[j]));
  }
  index[0] = if_less(score, best[0], number, index[0]);
  best[0] = if_less(score, best[0], score, best[0]);
}

// Few codewords are among the best of any lane once some hundred are known: the branch is what
// makes the search cost hardly more than that of a single one.
template <int kDim>
void few_nearest_of_dim(const engine::FewNearestArgs& a) {
  for (int lane = 0; lane < a.n_lanes; lane += 16) {
    V16 u[kDim], best[engine::kMostNearest], index[engine::kMostNearest];
    for (int i = 0; i < kDim; ++i) u[i] = sub(V16::zero(), V16::load(a.u + i * a.n_lanes + lane));
    for (int j = 0; j < a.n_best; ++j) {
      best[j] = V16::set(std::numeric_limits<float>::infinity());
      index[j] = V16::zero();
    }
    const auto offer = [&](V16 score, int k) {
      if (any_less(score, best[a.n_best - 1]))
        insert_score(score, V16::set(static_cast<float>(k)), best, index, a.n_best);
    };
    constexpr int kAtOnce = 4;  // chains of additions that do not wait for each other
    const float* codeword = a.table;
    int k = 0;
    for (; k + kAtOnce <= a.n_codes; k += kAtOnce, codeword += kAtOnce * (kDim + 1)) {
      V16 score[kAtOnce];
      for (int c = 0; c < kAtOnce; ++c) score[c] = score_of<kDim>(u, codeword + c * (kDim + 1));
      for (int c = 0; c < kAtOnce; ++c) offer(score[c], k + c);
    }
    for (; k < a.n_codes; ++k, codeword += kDim + 1) offer(score_of<kDim>(u, codeword), k);
    for (int j = 0; j < a.n_best; ++j) {
      best[j].store(a.score + j * a.n_lanes + lane);
      index[j].store(a.index + j * a.n_lanes + lane);
    }
  }
}

template <int kDim>
void nearest_weighted_of_dim(const engine::NearestWeightedArgs& a) {
  for (int lane = 0; lane < a.n_lanes; lane += 16) {
    V16 w[kDim], v[kDim];
    for (int i = 0; i < kDim; ++i) {
      w[i] = V16::load(a.w + i * a.n_lanes + lane);
      v[i] = V16::load(a.v + i * a.n_lanes + lane);
    }
    V16 best = V16::set(std::numeric_limits<float>::infinity()), index = V16::zero();
    const float* codeword = a.codebook;
    for (int k = 0; k < a.n_codes; ++k, codeword += kDim) {
      V16 score = V16::zero();
      for (int i = 0; i < kDim; ++i) {
        const V16 c = V16::set(codeword[i]);
        score = fma(fma(w[i], c, v[i]), c, score);
      }
      index = if_less(score, best, V16::set(static_cast<float>(k)), index);
      best = if_less(score, best, score, best);
    }
    best.store(a.score + lane);
    index.store(a.index + lane);
  }
}

}  // namespace

void push_errors_simd(const engine::PushArgs& a) {
  for (int first = 0; first < a.n_errors; first += kTileErrors) {
    const int n = std::min(kTileErrors, a.n_errors - first);
    int lane = 0;
    for (; lane + 16 * kTileVectors <= a.n_lanes; lane += 16 * kTileVectors)
      push_lanes<kTileVectors>(a, first, n, lane);
    for (; lane < a.n_lanes; lane += 16) push_lanes<1>(a, first, n, lane);
  }
}

void nearest_codewords_simd(const engine::NearestArgs& a) {
  switch (a.dim) {
    case 1:
      return nearest_of_dim<1>(a);
    case 2:
      return nearest_of_dim<2>(a);
    case 4:
      return nearest_of_dim<4>(a);
    case 8:
      return nearest_of_dim<8>(a);
    default:
      return nearest_of_dim<16>(a);
  }
}

void few_nearest_codewords_simd(const engine::FewNearestArgs& a) {
  switch (a.dim) {
    case 1:
      return few_nearest_of_dim<1>(a);
    case 2:
      return few_nearest_of_dim<2>(a);
    case 4:
      return few_nearest_of_dim<4>(a);
    case 8:
      return few_nearest_of_dim<8>(a);
    default:
      return few_nearest_of_dim<16>(a);
  }
}

void nearest_weighted_simd(const engine::NearestWeightedArgs& a) {
  switch (a.dim) {
    case 1:
      return nearest_weighted_of_dim<1>(a);
    case 2:
      return nearest_weighted_of_dim<2>(a);
    case 4:
      return nearest_weighted_of_dim<4>(a);
    case 8:
      return nearest_weighted_of_dim<8>(a);
    default:
      return nearest_weighted_of_dim<16>(a);
  }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {
namespace {

void run_push(CpuTarget target, const engine::PushArgs& args) {
  ASSAY_CPU_CALL(target, push_errors_simd, args);
}
void run_nearest(CpuTarget target, const engine::NearestArgs& args) {
  ASSAY_CPU_CALL(target, nearest_codewords_simd, args);
}
void run_few_nearest(CpuTarget target, const engine::FewNearestArgs& args) {
  ASSAY_CPU_CALL(target, few_nearest_codewords_simd, args);
}
void run_nearest_weighted(CpuTarget target, const engine::NearestWeightedArgs& args) {
  ASSAY_CPU_CALL(target, nearest_weighted_simd, args);
}

}  // namespace
}  // namespace assay::kernels

namespace assay::engine {

bool is_searchable_dim(int dim) {
  return dim == 1 || dim == 2 || dim == 4 || dim == 8 || dim == 16;
}

void push_errors(kernels::CpuTarget target, const PushArgs& args) {
  CHECK(args.n_lanes % kLaneStep == 0) << args.n_lanes;
  kernels::run_push(target, args);
}

void nearest_codewords(kernels::CpuTarget target, const NearestArgs& args) {
  CHECK(args.n_lanes % kLaneStep == 0 && is_searchable_dim(args.dim))
      << "lanes " << args.n_lanes << ", dim " << args.dim;
  kernels::run_nearest(target, args);
}

void few_nearest_codewords(kernels::CpuTarget target, const FewNearestArgs& args) {
  CHECK(args.n_lanes % kLaneStep == 0 && is_searchable_dim(args.dim) && args.n_best >= 1 &&
        args.n_best <= std::min(args.n_codes, kMostNearest))
      << "lanes " << args.n_lanes << ", dim " << args.dim << ", " << args.n_best << " of "
      << args.n_codes;
  kernels::run_few_nearest(target, args);
}

void nearest_weighted(kernels::CpuTarget target, const NearestWeightedArgs& args) {
  CHECK(args.n_lanes % kLaneStep == 0 && is_searchable_dim(args.dim))
      << "lanes " << args.n_lanes << ", dim " << args.dim;
  kernels::run_nearest_weighted(target, args);
}

}  // namespace assay::engine
#endif  // HWY_ONCE
