// Scores, softmax and latent sums of one block of keys: the body of mla_block_cpu, per instruction
// set.

#if defined(ASSAY_KERNELS_MLA_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASSAY_KERNELS_MLA_BLOCK_INL_H_
#undef ASSAY_KERNELS_MLA_BLOCK_INL_H_
#else
#define ASSAY_KERNELS_MLA_BLOCK_INL_H_
#endif

#include <limits>

#include "kernels/exp-inl.h"
#include "kernels/mla_attention.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

constexpr bool kWide = HWY_TARGET == HWY_AVX3;

// Where a block's parts lie in the caller's scratch.
struct Block {
  explicit Block(const MlaBlockArgs& args)
      : a(args),
        n_lanes(mla_lanes(args.n_pairs)),
        scores(args.scratch),
        keep(scores + static_cast<std::ptrdiff_t>(kMlaKeyBlock + 8) * n_lanes),
        take(keep + n_lanes),
        largest(take + n_lanes),
        sum(largest + n_lanes) {}
  const MlaBlockArgs& a;
  int n_lanes;
  float* scores;         // (kMlaKeyBlock + 8, n_lanes): scores, then exp(score - max)
  float *keep, *take;    // (n_lanes): the fold's factors for the state and for this block
  float *largest, *sum;  // (n_lanes): this block's own
};

// Scores of J keys for L vectors of lanes from `lane` on: a chain over the row's dims each.
template <class V, int L, int J>
HWY_INLINE void score_keys(const Block& b, const float* const* rows, int lane, int key) {
  const int dims = b.a.kv_lora + b.a.rope;
  const float* q = b.a.q + lane;
  const float* row[J];
  for (int j = 0; j < J; ++j) row[j] = rows[key + j];
  V dot[J][L];
#pragma GCC unroll 16
  for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l) dot[j][l] = V::zero();
  for (int i = 0; i < dims; ++i, q += b.n_lanes) {
    V query[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l) query[l] = V::load(q + l * V::kLanes);
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) {
      const V k = V::set(row[j][i]);
#pragma GCC unroll 16
      for (int l = 0; l < L; ++l) dot[j][l] = fma(query[l], k, dot[j][l]);
    }
  }
  const V scale = V::set(b.a.scale);
#pragma GCC unroll 16
  for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
    for (int l = 0; l < L; ++l)
      mul(dot[j][l], scale)
          .store(b.scores + static_cast<std::ptrdiff_t>(key + j) * b.n_lanes + lane +
                 l * V::kLanes);
}

template <class V, int L, int J>
HWY_NOINLINE void score_lanes(const Block& b, const float* const* rows, int lane) {
  for (int key = 0; key < b.a.n_keys; key += J) score_keys<V, L, J>(b, rows, lane, key);
}

// Folds the block's maximum and sum of one vector of pairs into the state.
template <class V>
HWY_INLINE void fold(const Block& b, int lane, V largest, V sum, V limit) {
  const MlaBlockArgs& a = b.a;
  const V none = V::zero();  // none < limit: the lane sees a key
  if (a.first) {
    largest.store(a.state.max + lane);
    if_less(none, limit, sum, none).store(a.state.sum + lane);
    return;
  }
  const V max_before = V::load(a.state.max + lane), sum_before = V::load(a.state.sum + lane);
  const V both = max(largest, max_before);
  const V keep = exp_f32(sub(max_before, both)), take = exp_f32(sub(largest, both));
  if_less(none, limit, both, max_before).store(a.state.max + lane);
  if_less(none, limit, fma(sum, take, mul(sum_before, keep)), sum_before).store(a.state.sum + lane);
  keep.store(b.keep + lane);
  take.store(b.take + lane);
}

// Maximum, exp and sum of one vector of pairs, and the fold.
template <class V>
HWY_NOINLINE void softmax(const Block& b, int lane, int visible_to_all) {
  const MlaBlockArgs& a = b.a;
  float n_visible[V::kLanes];
  for (int i = 0; i < V::kLanes; ++i) n_visible[i] = static_cast<float>(a.n_visible[lane + i]);
  const V limit = V::load(n_visible);
  const V lowest = V::set(-std::numeric_limits<float>::infinity());
  float* score = b.scores + lane;

  V largest = lowest;
  for (int j = 0; j < a.n_keys; ++j, score += b.n_lanes) {
    V s = V::load(score);
    if (j >= visible_to_all) {  // -inf becomes exp = 0, which changes no sum
      s = if_less(V::set(static_cast<float>(j)), limit, s, lowest);
      s.store(score);
    }
    largest = max(s, largest);  // a NaN is passed over here and makes the sum NaN below
  }
  V sum = V::zero();
  score = b.scores + lane;
  for (int j = 0; j < a.n_keys; ++j, score += b.n_lanes) {
    const V p = exp_f32(sub(V::load(score), largest));
    p.store(score);
    sum = add(sum, p);
  }
  fold(b, lane, largest, sum, limit);
}

// Scores of K groups of 16 keys for G pairs from `pair` on, lanes being keys: the same chains over
// the row's dims. Then their exp and sums, into the block's columns of those pairs.
template <int G, int K>
HWY_NOINLINE void score_by_key(const Block& b, int pair, float (*scores)[kMlaKeyBlock], int group) {
  const MlaBlockArgs& a = b.a;
  const int dims = a.kv_lora + a.rope;
  const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(dims) * 16;
  const float* keys = a.key_blocks + group * stride;
  const float* q = a.q + static_cast<std::ptrdiff_t>(pair) * dims;
  V16 dot[G][K];
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) dot[g][k] = V16::zero();
  for (int i = 0; i < dims; ++i, keys += 16) {
    V16 key[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) key[k] = V16::load(keys + k * stride);
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g) {
      const V16 query = V16::set(q[g * dims + i]);
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) dot[g][k] = fma(query, key[k], dot[g][k]);
    }
  }
  const V16 scale = V16::set(a.scale);
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) mul(dot[g][k], scale).store(scores[g] + (group + k) * 16);
}

template <int G>
void softmax_by_key(const Block& b, int pair) {
  const MlaBlockArgs& a = b.a;
  alignas(64) float scores[G][kMlaKeyBlock];
  const int n_groups = (a.n_keys + 15) / 16;
  if (n_groups == 1) {
    score_by_key<G, 1>(b, pair, scores, 0);
  } else if (n_groups == 2 || !kWide) {  // 3 x 2 sums of two registers each are all that AVX2 holds
    for (int group = 0; group < n_groups; group += 2) score_by_key<G, 2>(b, pair, scores, group);
  } else {
    score_by_key<G, 4>(b, pair, scores, 0);
  }
  const V16 lowest = V16::set(-std::numeric_limits<float>::infinity());
  for (int g = 0; g < G; ++g) {
    for (int j = a.n_keys; j < n_groups * 16; ++j)
      scores[g][j] = -std::numeric_limits<float>::infinity();
    V16 largest = lowest;
    for (int j = 0; j < a.n_keys; j += 16) largest = max(V16::load(scores[g] + j), largest);
    float lane[16];
    largest.store(lane);
    float top = lane[0];
    for (int i = 1; i < 16; ++i) top = lane[i] > top ? lane[i] : top;
    b.largest[pair + g] = top;
    for (int j = 0; j < a.n_keys; j += 16)
      exp_f32(sub(V16::load(scores[g] + j), V16::set(top))).store(scores[g] + j);
  }
  float sum[G] = {};
  for (int j = 0; j < a.n_keys; ++j)
    for (int g = 0; g < G; ++g) {
      const float p = scores[g][j];
      b.scores[static_cast<std::ptrdiff_t>(j) * b.n_lanes + pair + g] = p;
      sum[g] += p;
    }
  for (int g = 0; g < G; ++g) b.sum[pair + g] = sum[g];
}

void scores_by_key(const Block& b) {
  int pair = 0;
  for (; pair + 3 <= b.a.n_pairs; pair += 3) softmax_by_key<3>(b, pair);
  if (pair + 2 == b.a.n_pairs) softmax_by_key<2>(b, pair);
  if (pair + 1 == b.a.n_pairs) softmax_by_key<1>(b, pair);
  for (pair = b.a.n_pairs; pair < b.n_lanes; ++pair) b.largest[pair] = b.sum[pair] = 0;
  const V8 all = V8::set(static_cast<float>(b.a.n_keys));
  for (int lane = 0; lane < b.n_lanes; lane += 8)
    fold(b, lane, V8::load(b.largest + lane), V8::load(b.sum + lane), all);
}

HWY_INLINE V16 load_columns(const float* p, int n) {
  return n >= 16 ? V16::load(p) : V16::load_n(p, n);
}

// Latent of R pairs, C vectors of columns from `column` on (n_columns are left in the row): a chain
// over keys each, folded into the state.
template <int R, int C, bool kTail>
HWY_NOINLINE void accumulate_tile(const Block& b, int pair, int column) {
  const MlaBlockArgs& a = b.a;
  const int n_columns = a.kv_lora - column;
  int end[R], all = a.n_keys;
  for (int r = 0; r < R; ++r) {
    end[r] = std::min(a.n_visible[pair + r], a.n_keys);
    all = std::min(all, end[r]);
  }
  V16 sum[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) sum[r][c] = V16::zero();
  const float* p = b.scores + pair;
  int j = 0;
  for (; j < all; ++j, p += b.n_lanes) {
    const float* row = a.rows[j] + column;
    V16 v[C];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c)
      v[c] = kTail ? load_columns(row, n_columns) : V16::load(row + c * 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V16 weight = V16::set(p[r]);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) sum[r][c] = fma(weight, v[c], sum[r][c]);
    }
  }
  // Keys that only some of the pairs see: left out for the others, not multiplied by zero.
  for (; j < a.n_keys; ++j, p += b.n_lanes) {
    const float* row = a.rows[j] + column;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      if (j < end[r]) {
        const V16 weight = V16::set(p[r]);
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c)
          sum[r][c] = fma(weight, kTail ? load_columns(row, n_columns) : V16::load(row + c * 16),
                          sum[r][c]);
      }
  }
  const int stride = mla_latent_stride(a.kv_lora);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    if (end[r] <= 0) continue;
    float* latent = a.state.latent + static_cast<std::ptrdiff_t>(pair + r) * stride + column;
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      V16 folded = sum[r][c];
      if (!a.first)
        folded = fma(sum[r][c], V16::set(b.take[pair + r]),
                     mul(V16::load(latent + c * 16), V16::set(b.keep[pair + r])));
      folded.store(latent + c * 16);
    }
  }
}

// R x C sums, two registers each on AVX2, stay within 24 of 32 or 12 of 16 registers.
constexpr int kPairsAtOnce = 6;
constexpr int columns_at_once(int n_pairs) { return (kWide ? 4 : 1) * (n_pairs <= 3 ? 2 : 1); }

template <int R>
void accumulate_pairs(const Block& b, int pair) {
  constexpr int C = columns_at_once(R);
  int column = 0;
  for (; column + C * 16 <= b.a.kv_lora; column += C * 16)
    accumulate_tile<R, C, false>(b, pair, column);
  if constexpr (C > 1)
    for (; column + 16 <= b.a.kv_lora; column += 16) accumulate_tile<R, 1, false>(b, pair, column);
  if (column < b.a.kv_lora) accumulate_tile<R, 1, true>(b, pair, column);
}

void scores_by_pair(const Block& b) {
  const MlaBlockArgs& a = b.a;
  // Keys are scored eight (AVX2: six) at a time; the rows beyond the last are it again, and their
  // scores are not used.
  const float* rows[kMlaKeyBlock + 8];
  for (int j = 0; j < a.n_keys; ++j) rows[j] = a.rows[j];
  for (int j = a.n_keys; j < a.n_keys + 8; ++j) rows[j] = a.rows[a.n_keys - 1];
  int lane = 0;
  if constexpr (kWide) {
    for (; lane + 48 <= b.n_lanes; lane += 48) score_lanes<V16, 3, 8>(b, rows, lane);
    if (lane + 32 <= b.n_lanes) {
      score_lanes<V16, 2, 8>(b, rows, lane);
      lane += 32;
    }
    if (lane + 16 <= b.n_lanes) {
      score_lanes<V16, 1, 8>(b, rows, lane);
      lane += 16;
    }
  } else {
    for (; lane + 16 <= b.n_lanes; lane += 16) score_lanes<V16, 1, 6>(b, rows, lane);
  }
  if (lane < b.n_lanes) score_lanes<V8, 1, 8>(b, rows, lane);

  int visible_to_all = a.n_keys;
  for (int i = 0; i < a.n_pairs; ++i) visible_to_all = std::min(visible_to_all, a.n_visible[i]);
  for (lane = 0; lane + 16 <= b.n_lanes; lane += 16) softmax<V16>(b, lane, visible_to_all);
  if (lane < b.n_lanes) softmax<V8>(b, lane, visible_to_all);
}

}  // namespace

void mla_block(const MlaBlockArgs& a) {
  const Block b(a);
  if (a.key_blocks != nullptr)
    scores_by_key(b);
  else
    scores_by_pair(b);
  int pair = 0;
  for (; pair + kPairsAtOnce <= a.n_pairs; pair += kPairsAtOnce)
    accumulate_pairs<kPairsAtOnce>(b, pair);
  for (; pair + 3 <= a.n_pairs; pair += 3) accumulate_pairs<3>(b, pair);
  for (; pair < a.n_pairs; ++pair) accumulate_pairs<1>(b, pair);
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD
#endif  // include guard
