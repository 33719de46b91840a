// Which keys a row attends to: its k largest scores, found by the digits of the k-th.
#include <cooperative_groups.h>

#include "kernels/cuda_check.cuh"
#include "kernels/indexer_cuda.h"
#include "kernels/ordered.cuh"

namespace assay::kernels {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kBins = 1 << 11;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
static_assert(kBins == 4 * kThreads, "a thread looks at four bins");

struct Digit {
  int shift, n_bits;
};
constexpr int kNumDigits = 3;
__device__ constexpr Digit kDigits[kNumDigits] = {{21, 11}, {10, 11}, {0, 10}};

// A row is shared by a cluster of blocks, each of which has consecutive keys of it, and a warp of a
// block consecutive ones of those; the cluster's other blocks read what a block has counted.
struct Shared {
  // One a digit, so that no block has to wait until the others have read the last before it counts
  // on.
  alignas(16) int histogram[kNumDigits][kBins];
  int larger[kWarps], equal[kWarps];  // of a warp's keys than the k-th largest score, or to it
  unsigned next_best[kWarps];         // of a warp's scores below it
  int n_larger, n_equal;              // of the block
  unsigned block_next_best;
  unsigned threshold;  // the k-th largest, as far as its digits are known
  int missing;         // how many of those that agree with it so far are among the k largest
  // Read four at a time, so apart from what one thread writes meanwhile.
  alignas(16) int of_warp[kWarps];
};

template <int kBlocks>
__device__ void sync_cluster() {
  if constexpr (kBlocks == 1)
    __syncthreads();
  else
    cooperative_groups::this_cluster().sync();
}
template <int kBlocks>
__device__ const Shared& block_of_cluster(Shared& own, int rank) {
  if constexpr (kBlocks == 1)
    return own;
  else
    return *cooperative_groups::this_cluster().map_shared_rank(&own, rank);
}

// Never 0, which stands for no key.
__device__ unsigned rank_of(float score) { return ordered(isnan(score) ? -INFINITY : score); }

// Calls take(key, rank) for each of the warp's keys, of all lanes at once: 0 past the end. Several
// loads are on their way at a time.
template <class Take>
__device__ void each_key(const float* scores, int begin, int end, const Take& take) {
  constexpr int kAhead = 8;
  for (int first = begin; first < end; first += 32 * kAhead) {
    const int key = first + static_cast<int>(threadIdx.x) % 32;
    float score[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) score[i] = key + 32 * i < end ? scores[key + 32 * i] : 0.0f;
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      take(key + 32 * i, key + 32 * i < end ? rank_of(score[i]) : 0u);
  }
}

// One more digit of the k-th largest score: the bin at which the best, counted from the top, are
// enough. Its histogram of each block is of the scores that agree with the digits before.
template <int kBlocks>
__device__ void find_digit(Shared& s, int digit) {
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int first_bin = kBins - 4 * (t + 1);
  int4 n = {0, 0, 0, 0};
  for (int b = 0; b < kBlocks; ++b) {
    const int4 other = *reinterpret_cast<const int4*>(
        block_of_cluster<kBlocks>(s, b).histogram[digit] + first_bin);
    n = {n.x + other.x, n.y + other.y, n.z + other.z, n.w + other.w};
  }
  const int own = n.x + n.y + n.z + n.w;
  int up_to = own;  // of this thread's bins and the better ones
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, up_to, offset);
    if (lane >= offset) up_to += other;
  }
  const int missing = s.missing;
  if (lane == 31) s.of_warp[warp] = up_to;
  __syncthreads();  // of_warp is there, and nobody needs the old s.missing
  for (int w = 0; w < warp; ++w) up_to += s.of_warp[w];
  int before = up_to - own;
  if (before >= missing || up_to < missing) return;
  int bin = first_bin + 3;
  for (const int in_bin : {n.w, n.z, n.y}) {
    if (before + in_bin >= missing) break;
    before += in_bin;
    --bin;
  }
  s.threshold |= static_cast<unsigned>(bin) << kDigits[digit].shift;
  s.missing = missing - before;
}

// For find_threshold; a barrier has to follow.
__device__ void clear_histograms(Shared& s, int k) {
  int4* const bins = reinterpret_cast<int4*>(s.histogram);
  for (int i = threadIdx.x; i < kNumDigits * kBins / 4; i += kThreads) bins[i] = {0, 0, 0, 0};
  if (threadIdx.x != 0) return;
  s.threshold = 0;
  s.missing = k;
}

// Leaves the k-th largest rank in s.threshold, and in s.missing how many of its equals are chosen.
template <int kBlocks>
__device__ void find_threshold(Shared& s, const float* scores, int begin, int end) {
#pragma unroll
  for (int d = 0; d < kNumDigits; ++d) {
    const int shift = kDigits[d].shift, n_bits = kDigits[d].n_bits;
    const unsigned known = shift + n_bits == 32 ? 0u : ~0u << (shift + n_bits);
    const unsigned threshold = s.threshold, digit = (1u << n_bits) - 1;
    each_key(scores, begin, end, [&](int, unsigned rank) {
      if (rank != 0 && (rank & known) == threshold)
        atomicAdd(&s.histogram[d][rank >> shift & digit], 1);
    });
    sync_cluster<kBlocks>();
    find_digit<kBlocks>(s, d);
    __syncthreads();  // s.threshold is there
  }
}

// What each warp and block has above the threshold, at it, and the best below.
__device__ void count_chosen(Shared& s, const float* scores, int begin, int end) {
  const unsigned threshold = s.threshold;
  const int warp = threadIdx.x / 32;
  int larger = 0, equal = 0;
  unsigned next_best = 0;
  each_key(scores, begin, end, [&](int, unsigned rank) {
    larger += __popc(__ballot_sync(kAllLanes, rank > threshold));
    equal += __popc(__ballot_sync(kAllLanes, rank == threshold));
    if (rank < threshold) next_best = max(next_best, rank);
  });
  next_best = __reduce_max_sync(kAllLanes, next_best);
  if (threadIdx.x % 32 == 0) {
    s.larger[warp] = larger;
    s.equal[warp] = equal;
    s.next_best[warp] = next_best;
  }
  __syncthreads();
  if (warp != 0) return;
  const int w = threadIdx.x;
  larger = __reduce_add_sync(kAllLanes, w < kWarps ? s.larger[w] : 0);
  equal = __reduce_add_sync(kAllLanes, w < kWarps ? s.equal[w] : 0);
  next_best = __reduce_max_sync(kAllLanes, w < kWarps ? s.next_best[w] : 0);
  if (w != 0) return;
  s.n_larger = larger;
  s.n_equal = equal;
  s.block_next_best = next_best;
}

// The chosen of the warp's keys, behind those of the keys before them.
__device__ void write_chosen(const Shared& s, const float* scores, int begin, int end, int larger,
                             int equal, int* out) {
  const unsigned threshold = s.threshold, lanes_before = (1u << threadIdx.x % 32) - 1;
  const int room = s.missing;
  each_key(scores, begin, end, [&](int key, unsigned rank) {
    const unsigned above = __ballot_sync(kAllLanes, rank > threshold),
                   at = __ballot_sync(kAllLanes, rank == threshold);
    const int larger_before = larger + __popc(above & lanes_before),
              equal_before = equal + __popc(at & lanes_before);
    if (rank > threshold || (rank == threshold && equal_before < room))
      out[larger_before + min(equal_before, room)] = key;
    larger += __popc(above);
    equal += __popc(at);
  });
}

template <int kBlocks>
__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads)
    select_top_k_of_rows(IndexCuda a) {
  __shared__ Shared s;
  const int row = blockIdx.x / kBlocks, rank = blockIdx.x % kBlocks;
  const int n = a.position[row] + 1, k = a.top_k, warp = threadIdx.x / 32;
  clear_histograms(s, k);
  await_previous();
  let_next_begin();
  int* out = a.keys + static_cast<size_t>(row) * k;
  if (n <= k) {
    for (int i = rank * kThreads + threadIdx.x; i < n; i += kBlocks * kThreads) out[i] = i;
    if (rank != 0 || threadIdx.x != 0) return;
    a.n_keys[row] = n;
    a.margin[row] = INFINITY;
    return;
  }
  const float* scores = a.scores + static_cast<size_t>(row) * a.max_keys;
  const int of_warp = (n + kBlocks * kWarps - 1) / (kBlocks * kWarps);
  const int begin = min(n, (rank * kWarps + warp) * of_warp), end = min(n, begin + of_warp);
  __syncthreads();
  find_threshold<kBlocks>(s, scores, begin, end);
  count_chosen(s, scores, begin, end);
  sync_cluster<kBlocks>();
  int larger = 0, equal = 0, all_equal = 0;
  unsigned next_best = 0;
  for (int b = 0; b < kBlocks; ++b) {
    const Shared& other = block_of_cluster<kBlocks>(s, b);
    if (b < rank) {
      larger += other.n_larger;
      equal += other.n_equal;
    }
    all_equal += other.n_equal;
    next_best = max(next_best, other.block_next_best);
  }
  for (int w = 0; w < warp; ++w) {
    larger += s.larger[w];
    equal += s.equal[w];
  }
  write_chosen(s, scores, begin, end, larger, equal, out);
  if (rank == 0 && threadIdx.x == 0) {
    a.n_keys[row] = k;
    // Equal scores beyond the k-th leave no margin.
    a.margin[row] =
        all_equal > s.missing ? 0.0f : float_of_ordered(s.threshold) - float_of_ordered(next_best);
  }
  sync_cluster<kBlocks>();  // a block that has ended cannot be read
}

}  // namespace

void select_top_k_cuda(const IndexCuda& a, CudaStream stream) {
  // A block reads 4096 scores in the time that a cluster needs to agree.
  constexpr int kCluster = 8, kLongRow = 4096;
  CHECK(a.top_k > 0) << a.top_k;
  if (a.max_keys > kLongRow && a.n_rows * kCluster <= n_multiprocessors())
    overlapped(select_top_k_of_rows<kCluster>, dim3(a.n_rows * kCluster), kThreads, 0, stream, a);
  else
    overlapped(select_top_k_of_rows<1>, dim3(a.n_rows), kThreads, 0, stream, a);
}

}  // namespace assay::kernels
