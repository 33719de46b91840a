// The router's choice of one row, by a thread an expert: a block's (route_cuda.cu), or some warps'
// beside other work (moe_input_cuda.cu). Bits do not depend on how many threads there are.
#pragma once

#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/ordered.cuh"

namespace assay::kernels {

inline void check_route(const RouteCuda& a) {
  CHECK(a.n_experts <= kMaxExpertsCuda && a.top_k <= kMaxTopExpertsCuda && a.top_k > 0 &&
        a.top_k <= a.n_experts)
      << a.n_experts << ", " << a.top_k;
}

using RouteKey = unsigned long long;  // of ordered(double)

// Of kMost experts at most.
template <int kMost>
struct RouteShared {
  double score[kMost];
  RouteKey key[kMost];  // of score + bias
  // The best of each warp's, one warp's behind the other's, and the best of these.
  RouteKey candidate_key[kMost];
  int candidate[kMost];
  RouteKey best_key[kMaxTopExpertsCuda + 1];
  int best[kMaxTopExpertsCuda + 1];
  double ascending[kMaxTopExpertsCuda];  // scores of the chosen, by expert
};

// How many of n keys come before keys[own]: larger ones, and equal ones that stand before it.
__device__ inline int rank_among(const RouteKey* keys, int n, int own) {
  const RouteKey key = keys[own];
  int rank = 0;
#pragma unroll 8
  for (int i = 0; i < n; ++i) rank += keys[i] > key || (keys[i] == key && i < own) ? 1 : 0;
  return rank;
}

// By ranks, not by rounds: no step waits for a choice of another. What is not among its warp's
// first n_best is not among the row's. Equal keys keep the order of experts in either ranking.
template <int kMost, class Wait>
__device__ inline void find_best(RouteShared<kMost>& s, int n_best, int e, int n_threads,
                                 const Wait& wait) {
  const int lane = e % 32, warp = e / 32, of_warp = min(n_best, 32);
  const int in_warp = rank_among(s.key + (e - lane), 32, lane);
  if (in_warp < of_warp) {
    s.candidate[warp * of_warp + in_warp] = e;
    s.candidate_key[warp * of_warp + in_warp] = s.key[e];
  }
  wait();
  const int n_candidates = n_threads / 32 * of_warp;
  if (e < n_candidates) {
    const int rank = rank_among(s.candidate_key, n_candidates, e);
    if (rank < n_best) {
      s.best[rank] = s.candidate[e];
      s.best_key[rank] = s.candidate_key[e];
    }
  }
  wait();
}

// By one warp: the chosen in ascending order, whose scores are added up in it.
template <int kMost>
__device__ inline void write_choice(const RouteCuda& a, int row, RouteShared<kMost>& s, int lane) {
  const int k = a.top_k;
  const bool chose = lane < k;
  const int e = chose ? s.best[lane] : 0;
  int place = 0;
  for (int i = 0; i < k; ++i) place += s.best[i] < e ? 1 : 0;
  if (chose) s.ascending[place] = s.score[e];
  __syncwarp();
  double sum = 0;
  for (int i = 0; i < k; ++i) sum += s.ascending[i];
  const double scale = static_cast<double>(a.scaling) / (a.normalise ? sum + 1e-20 : 1.0);
  if (!chose) return;
  a.expert[row * k + place] = e;
  a.weight[row * k + place] = static_cast<float>(s.score[e] * scale);
  if (lane == 0)
    a.margin[row] = k < a.n_experts ? static_cast<float>(double_of_ordered(s.best_key[k - 1]) -
                                                         double_of_ordered(s.best_key[k]))
                                    : INFINITY;
}

// By n_threads (whole warps, no fewer than experts), of which this is number e, for all of which
// `wait` is a barrier. logit, bias: its expert's. For another row s is free behind another `wait`.
template <int kMost, class Wait>
__device__ inline void choose_experts(const RouteCuda& a, int row, RouteShared<kMost>& s, int e,
                                      int n_threads, float logit, float bias, const Wait& wait) {
  s.key[e] = 0;  // behind every expert
  if (e < a.n_experts) {
    s.score[e] = 1.0 / (1.0 + exp(-static_cast<double>(logit)));
    const double choice = s.score[e] + static_cast<double>(bias);
    s.key[e] = ordered(isnan(choice) ? -INFINITY : choice);
  }
  __syncwarp();
  find_best(s, min(a.top_k + 1, a.n_experts), e, n_threads, wait);
  if (e < 32) write_choice(a, row, s, e);
}

}  // namespace assay::kernels
