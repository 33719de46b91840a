// The router's choice: which experts a row goes to, and with what weights.
#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/ordered.cuh"

namespace assay::kernels {
namespace {

using Key = unsigned long long;  // of ordered(double)

__device__ double score_of(float logit) { return 1.0 / (1.0 + exp(-static_cast<double>(logit))); }

// How many of n keys come before keys[own]: larger ones, and equal ones that stand before it.
__device__ int rank_among(const Key* keys, int n, int own) {
  const Key key = keys[own];
  int rank = 0;
#pragma unroll 8
  for (int i = 0; i < n; ++i) rank += keys[i] > key || (keys[i] == key && i < own) ? 1 : 0;
  return rank;
}

struct Shared {
  double score[kMaxExpertsCuda];
  Key key[kMaxExpertsCuda];  // of score + bias
  // The best of each warp's, one warp's behind the other's, and the best of these.
  Key candidate_key[kMaxExpertsCuda];
  int candidate[kMaxExpertsCuda];
  Key best_key[kMaxTopExpertsCuda + 1];
  int best[kMaxTopExpertsCuda + 1];
  double ascending[kMaxTopExpertsCuda];  // scores of the chosen, by expert
};

// By ranks, not by rounds: no step waits for a choice of another. What is not among its warp's
// first n_best is not among the row's. Equal keys keep the order of experts in either ranking.
__device__ void find_best(Shared& s, int n_best) {
  const int e = threadIdx.x, lane = e % 32, warp = e / 32, of_warp = min(n_best, 32);
  const int in_warp = rank_among(s.key + (e - lane), 32, lane);
  if (in_warp < of_warp) {
    s.candidate[warp * of_warp + in_warp] = e;
    s.candidate_key[warp * of_warp + in_warp] = s.key[e];
  }
  __syncthreads();
  const int n_candidates = static_cast<int>(blockDim.x) / 32 * of_warp;
  if (e < n_candidates) {
    const int rank = rank_among(s.candidate_key, n_candidates, e);
    if (rank < n_best) {
      s.best[rank] = s.candidate[e];
      s.best_key[rank] = s.candidate_key[e];
    }
  }
  __syncthreads();
}

// By one warp: the chosen in ascending order, whose scores are added up in it.
__device__ void write_choice(const RouteCuda& a, Shared& s) {
  const int lane = threadIdx.x, k = a.top_k, row = blockIdx.x;
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

// A block to a row, a thread to an expert.
__global__ void __launch_bounds__(kMaxExpertsCuda) route(RouteCuda a) {
  __shared__ Shared s;
  const int e = threadIdx.x;
  const bool is_expert = e < a.n_experts;
  const auto bias = static_cast<double>(is_expert ? a.bias[e] : 0.0f);
  await_previous();
  let_next_begin();
  s.key[e] = 0;  // behind every expert
  if (is_expert) {
    s.score[e] = score_of(a.logits[static_cast<size_t>(blockIdx.x) * a.n_experts + e]);
    const double choice = s.score[e] + bias;
    s.key[e] = ordered(isnan(choice) ? -INFINITY : choice);
  }
  __syncwarp();
  find_best(s, min(a.top_k + 1, a.n_experts));
  if (e < 32) write_choice(a, s);
}

}  // namespace

void route_cuda(const RouteCuda& a, CudaStream stream) {
  CHECK(a.n_experts <= kMaxExpertsCuda && a.top_k <= kMaxTopExpertsCuda && a.top_k > 0 &&
        a.top_k <= a.n_experts)
      << a.n_experts << ", " << a.top_k;
  overlapped(route, dim3(a.n_rows), (a.n_experts + 31) / 32 * 32, 0, stream, a);
}

}  // namespace assay::kernels
