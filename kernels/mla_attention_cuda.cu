#include <array>

#include "kernels/cuda_check.cuh"
#include "kernels/mla_attention_cluster.cuh"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_state.cuh"
#include "kernels/mla_attention_tiled.cuh"
#include "kernels/row_dot.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {
namespace {

constexpr int kMostSplits = 128, kFoldAhead = 32;  // splits on their way
constexpr int kMostFoldThreads = 256;              // to a column each

// Of each split, what is there is multiplied by x and what comes by y before they are added.
struct Factors {
  float2 of[kMostSplits];
  float sums[kMostSplits];
};
// By one warp.
__device__ void find_factors(const float2* states, int n, Factors& f) {
  const int lane = threadIdx.x;
  float2 state[kMostSplits / 32];
#pragma unroll
  for (int w = 0; w < kMostSplits / 32; ++w)
    state[w] = w * 32 + lane < n ? __ldcg(states + w * 32 + lane) : float2{-INFINITY, 0};
  float past = -INFINITY;  // largest of the splits before these
#pragma unroll
  for (int w = 0; w < kMostSplits / 32; ++w) {
    if (w * 32 >= n) break;
    float largest = state[w].x;  // up to this one
    for (int offset = 1; offset < 32; offset *= 2) {
      const float other = __shfl_up_sync(0xFFFFFFFFu, largest, offset);
      if (lane >= offset) largest = fmaxf(largest, other);
    }
    float before = __shfl_up_sync(0xFFFFFFFFu, largest, 1);
    before = lane == 0 ? past : fmaxf(past, before);
    const Fold fold(before, state[w].x);
    const int i = w * 32 + lane;
    // The first is kept as it is: nothing times 0, and 1 times it.
    f.of[i] = i == 0 ? float2{0, 1} : float2{fold.keep, fold.fresh};
    f.sums[i] = state[w].y;
    past = fmaxf(past, __shfl_sync(0xFFFFFFFFu, largest, 31));
  }
}

// What a block folds by itself when it has all splits, from its parts, each read once: past this
// multiprocessor's own cache, on which it may have begun before they were written. Grid: pairs, a
// block's threads of their columns.
__global__ void __launch_bounds__(kMostFoldThreads) fold_splits(MlaAttentionCuda a, int n_splits) {
  __shared__ Factors factors;
  const size_t pair = blockIdx.x;
  const KeysOfRow keys(a, static_cast<int>(blockIdx.x) / a.n_heads);
  const int split_keys = mla_split_keys(a.n_heads, keys.n),
            n = (keys.n + split_keys - 1) / split_keys;
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const float* part = a.parts + pair * n_splits * a.kv_lora + column;
  const auto fetch = [&](int first, float(&v)[kFoldAhead]) {
#pragma unroll
    for (int i = 0; i < kFoldAhead; ++i)
      v[i] = first + i < n && column < a.kv_lora
                 ? __ldcg(part + static_cast<size_t>(first + i) * a.kv_lora)
                 : 0;
  };
  await_previous();
  let_next_begin();
  float v[kFoldAhead];
  fetch(0, v);
  if (threadIdx.x < 32) find_factors(split_states(a, n_splits) + pair * n_splits, n, factors);
  __syncthreads();
  if (column >= a.kv_lora) return;
  float value = 0, sum = 0;
  for (int first = 0; first < n; first += kFoldAhead) {
    float next[kFoldAhead];
    fetch(first + kFoldAhead, next);
#pragma unroll
    for (int i = 0; i < kFoldAhead; ++i) {
      const float2 f = factors.of[first + i];
      const float later = fmaf(v[i], f.y, value * f.x),
                  later_sum = fmaf(factors.sums[first + i], f.y, sum * f.x);
      const bool is_there = first + i < n;  // no branch: the factors are read ahead
      value = is_there ? later : value;
      sum = is_there ? later_sum : sum;
      v[i] = next[i];
    }
  }
  a.out[pair * a.kv_lora + column] = value / sum;
}

// Any shape: a block to a row and head, a thread to a few latent values.
constexpr int kRowThreads = 128;
__global__ void attend_row(MlaAttentionCuda a) {
  extern __shared__ float shared[];  // q of the head, then scores of kBlockKeys keys
  constexpr int kBlockKeys = 64;
  const int row = blockIdx.x, head = blockIdx.y, width = a.kv_lora + a.rope;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float *q = shared, *p = shared + width;
  await_previous();
  let_next_begin();
  const float* q_in = a.q + (static_cast<size_t>(row) * a.n_heads + head) * width;
  for (int i = threadIdx.x; i < width; i += kRowThreads) q[i] = q_in[i];
  const auto* cache = reinterpret_cast<const __half*>(a.cache[row]);
  const int* keys = a.keys == nullptr ? nullptr : a.keys + static_cast<size_t>(row) * a.keys_stride;
  const int n_keys = keys == nullptr ? a.position[row] + 1 : a.n_keys[row];
  const auto key_value = [&](int k, int i) {
    const __half* at = cache + static_cast<size_t>(keys == nullptr ? k : keys[k]) * 2 * width + i;
    return a.half ? __half2float(at[0]) : join_half(at[0], at[width]);
  };
  constexpr int kOwn = kMaxKvLoraCuda / kRowThreads;  // latent values of a thread
  float latent[kOwn] = {};
  float largest = -INFINITY, sum = 0;
  for (int first = 0; first < n_keys; first += kBlockKeys) {
    const int n = min(kBlockKeys, n_keys - first);
    __syncthreads();  // q is there; p is no longer read
    for (int k = warp; k < n; k += kRowThreads / 32) {
      float dot = 0;
      for (int i = lane; i < width; i += 32) dot = fmaf(q[i], key_value(first + k, i), dot);
      dot = warp_sum(dot);
      if (lane == 0) p[k] = dot * a.scale;
    }
    __syncthreads();
    float next = largest;
    for (int k = 0; k < n; ++k) next = fmaxf(next, p[k]);
    const float keep = expf(largest - next);
    __syncthreads();
    if (threadIdx.x < n) p[threadIdx.x] = expf(p[threadIdx.x] - next);
    __syncthreads();
    float block_total = 0;
    for (int k = 0; k < n; ++k) block_total += p[k];
    sum = fmaf(sum, keep, block_total);
    largest = next;
    for (int o = 0; o < kOwn; ++o) {
      const int i = threadIdx.x + o * kRowThreads;
      if (i >= a.kv_lora) break;
      float value = latent[o] * keep;
      for (int k = 0; k < n; ++k) value = fmaf(p[k], key_value(first + k, i), value);
      latent[o] = value;
    }
  }
  float* out = a.out + (static_cast<size_t>(row) * a.n_heads + head) * a.kv_lora;
  for (int o = 0; o < kOwn; ++o) {
    const int i = threadIdx.x + o * kRowThreads;
    if (i < a.kv_lora) out[i] = latent[o] / sum;
  }
}

// Columns of a warp; 0: not tiled, because of the shape, or because this device's blocks may not
// share as much memory (sm_120's 99 KiB hold micro-glm's keys, not GLM-5.2's).
int slab_of(int kv_lora, int rope) {
  const int width = kv_lora + rope;
  for (const int slab : {64, 32})
    if (kv_lora % slab == 0 && rope % slab == 0 && 2 * width / slab <= kMaxWarps &&
        Shared<2, false>::bytes(width, width / slab) <= max_shared_bytes())
      return slab;
  return 0;
}

int tiles_of(int n_heads, int heads_of_tile) {
  return (n_heads + heads_of_tile - 1) / heads_of_tile;
}
void allow_shared_bytes(const void* kernel, std::size_t n_bytes) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(n_bytes)));
}

// That the current device has at once, a block to a multiprocessor; 0: none.
int clusters_at_once() {
  static OncePerDevice count;
  static std::array<int, OncePerDevice::kMaxDevices> n = {};
  int device = 0, major = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  count([&] {
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major != 9) return;
    const auto kernel = attend_clustered<false, true>;
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), Cluster::shared_bytes(false));
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(Cluster::kBlocks);
    config.blockDim = dim3(Cluster::kThreads);
    config.dynamicSmemBytes = Cluster::shared_bytes(false);
    CUDA_CHECK(
        cudaOccupancyMaxActiveClusters(&n[static_cast<std::size_t>(device)], kernel, &config));
  });
  return n[static_cast<std::size_t>(device)];
}

// Whether blocks of clusters have this shape, on this device.
bool by_cluster(int n_heads, int kv_lora, int rope) {
  return kv_lora == Cluster::kKvLora && rope == Cluster::kAllRope && n_heads >= 32 &&
         clusters_at_once() > 0;
}

int n_head_tiles(int n_heads) { return tiles_of(n_heads, 32); }

constexpr int kEnoughBlocks = 32;  // a quarter of a large GPU

// Rows that are alone go in passes of so many, which bounds their parts' memory.
int rows_of_pass(int n_heads) { return std::max(1, kEnoughBlocks / n_head_tiles(n_heads)); }

// A launch in which each block, or cluster, has all splits of its heads.
struct WholeRows {
  WholeRows(int n_runs, int n_heads, int kv_lora, int rope)
      : by_clusters(by_cluster(n_heads, kv_lora, rope)),
        n(n_runs * (by_clusters ? tiles_of(n_heads, Cluster::kHeads) : n_head_tiles(n_heads))),
        at_once(by_clusters ? clusters_at_once() : n_multiprocessors()) {}
  // A good part of the GPU.
  bool leave_idle() const {
    const int n_waves = (n + at_once - 1) / at_once;
    return 5 * n < 4 * n_waves * at_once;
  }
  bool by_clusters;
  int n, at_once;
};

// No row of at most max_keys has more.
int n_splits(int n_heads, int max_keys) {
  return std::min(mla_most_splits(n_heads), (max_keys + kMlaSplitStep - 1) / kMlaSplitStep);
}
int n_splits(const MlaAttentionCuda& a) {
  return a.parts == nullptr ? 1 : n_splits(a.n_heads, a.max_keys);
}

// 32 pairs to a block, or 16 where a row's are no more or blocks are few.
int pair_tiles(const MlaAttentionCuda& a) {
  if (a.run != nullptr) return 2;
  const int n_blocks = a.n_rows * tiles_of(a.n_heads, 16) * n_splits(a);
  return a.n_heads <= 16 || n_blocks <= n_multiprocessors() ? 1 : 2;
}

template <int kSteps, int kPairTiles, bool kHalf>
void attend_in_tiles(const MlaAttentionCuda& a, CudaStream stream) {
  const int width = a.kv_lora + a.rope, n_slabs = width / (16 * kSteps),
            tiles = tiles_of(a.n_heads, 16 * kPairTiles);
  const std::size_t bytes = Shared<kPairTiles, kHalf>::bytes(width, n_slabs);
  const auto kernel = attend_tiled<kSteps, kPairTiles, kHalf>;
  static OncePerDevice prepare;
  prepare([&] { allow_shared_bytes(reinterpret_cast<const void*>(kernel), max_shared_bytes()); });
  const int n_runs = a.run == nullptr ? a.n_rows : a.n_runs;
  overlapped(kernel, dim3(n_runs * tiles, n_splits(a)), kPairTiles * n_slabs * 32, bytes, stream, a,
             tiles);
}

template <bool kHalf, bool kParts>
void attend_in_clusters(const MlaAttentionCuda& a, CudaStream stream) {
  const auto kernel = attend_clustered<kHalf, kParts>;
  static OncePerDevice prepare;
  prepare([&] {
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), Cluster::shared_bytes(kHalf));
  });
  const int tiles = tiles_of(a.n_heads, Cluster::kHeads);
  overlapped(kernel, dim3(Cluster::kBlocks * a.n_rows * tiles, n_splits(a)), Cluster::kThreads,
             Cluster::shared_bytes(kHalf), stream, a, tiles, arrivals_of_warp());
}

template <bool kHalf>
void attend_in_clusters(const MlaAttentionCuda& a, CudaStream stream) {
  a.parts != nullptr ? attend_in_clusters<kHalf, true>(a, stream)
                     : attend_in_clusters<kHalf, false>(a, stream);
}

template <int kSteps, int kPairTiles>
void attend_in_tiles(const MlaAttentionCuda& a, CudaStream stream) {
  if (a.half) return attend_in_tiles<kSteps, kPairTiles, true>(a, stream);
  attend_in_tiles<kSteps, kPairTiles, false>(a, stream);
}

// Its blocks begin while the launch ahead still holds its multiprocessors. Where that is most of
// them, the few others would take all blocks: so each takes its share, by the memory that a block
// asks for.
void fold(const MlaAttentionCuda& a, CudaStream stream) {
  const int n_pairs = a.n_rows * a.n_heads, at_once = n_multiprocessors();
  const WholeRows rows(a.n_rows, a.n_heads, a.kv_lora, a.rope);
  const bool many_are_free = 2 * rows.n * n_splits(a) <= rows.at_once;
  int n_threads = 64;
  while (!many_are_free && n_threads < kMostFoldThreads &&
         n_pairs * tiles_of(a.kv_lora, n_threads) > at_once)
    n_threads *= 2;
  const dim3 blocks(n_pairs, tiles_of(a.kv_lora, n_threads));
  const unsigned share = (blocks.x * blocks.y + at_once - 1) / at_once;
  static OncePerDevice prepare;
  prepare([&] {
    prefer_shared_memory(reinterpret_cast<const void*>(fold_splits), max_shared_bytes() / 2);
  });
  overlapped(fold_splits, blocks, n_threads,
             many_are_free || share > 3 ? 0 : max_shared_bytes() / (share + 1), stream, a,
             n_splits(a));
}

void attend(const MlaAttentionCuda& a, CudaStream stream) {
  const int slab = slab_of(a.kv_lora, a.rope);
  if (by_cluster(a.n_heads, a.kv_lora, a.rope)) {
    a.half ? attend_in_clusters<true>(a, stream) : attend_in_clusters<false>(a, stream);
  } else if (slab == 64) {
    pair_tiles(a) == 1 ? attend_in_tiles<4, 1>(a, stream) : attend_in_tiles<4, 2>(a, stream);
  } else if (slab == 32) {
    pair_tiles(a) == 1 ? attend_in_tiles<2, 1>(a, stream) : attend_in_tiles<2, 2>(a, stream);
  } else {
    const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(a.kv_lora + a.rope + 64);
    return overlapped(attend_row, dim3(a.n_rows, a.n_heads), kRowThreads, bytes, stream, a);
  }
  if (a.parts != nullptr) fold(a, stream);
}

// n rows of them, each alone.
MlaAttentionCuda part_of(MlaAttentionCuda a, int first, int n) {
  const auto rows = static_cast<std::ptrdiff_t>(first);
  a.q += rows * a.n_heads * (a.kv_lora + a.rope);
  a.out += rows * a.n_heads * a.kv_lora;
  a.cache += rows;
  a.position += rows;
  if (a.keys != nullptr) {
    a.keys += rows * a.keys_stride;
    a.n_keys += rows;
  }
  a.n_rows = a.n_runs = n;
  return a;
}

}  // namespace

void mla_attention_cuda(const MlaAttentionCuda& a, CudaStream stream) {
  CHECK(a.kv_lora <= kMaxKvLoraCuda && a.rope <= kMaxRopeCuda) << a.kv_lora << ", " << a.rope;
  CHECK(a.run == nullptr || a.keys == nullptr);
  if (a.parts == nullptr || a.run != nullptr) return attend(a, stream);
  const int n_rows = rows_of_pass(a.n_heads);
  for (int first = 0; first < a.n_rows; first += n_rows)
    attend(part_of(a, first, std::min(n_rows, a.n_rows - first)), stream);
}

const char* mla_design(int n_heads, int kv_lora, int rope) {
  if (by_cluster(n_heads, kv_lora, rope)) return "split keys, clusters";
  return slab_of(kv_lora, rope) > 0 ? "split keys, tensor cores" : "row by row";
}

std::size_t mla_parts(int n_rows, int n_runs, int n_heads, int kv_lora, int rope, int max_keys) {
  const bool are_alone = n_runs == n_rows;
  const int n_blocks = n_runs * n_head_tiles(n_heads);
  if (slab_of(kv_lora, rope) == 0 || n_head_tiles(n_heads) > kEnoughBlocks ||
      (n_blocks > kEnoughBlocks &&
       !(are_alone && WholeRows(n_runs, n_heads, kv_lora, rope).leave_idle())))
    return 0;
  const int n_kept = are_alone ? std::min(n_rows, rows_of_pass(n_heads)) : n_rows;
  return static_cast<std::size_t>(n_kept) * static_cast<std::size_t>(n_heads) *
         static_cast<std::size_t>(n_splits(n_heads, max_keys)) *
         static_cast<std::size_t>(kv_lora + 2);
}

std::size_t mla_most_parts(int max_rows, int rows_of_run, int n_heads, int kv_lora, int rope,
                           int max_keys) {
  const int runs = std::min(max_rows, kEnoughBlocks / n_head_tiles(n_heads)),
            rows = std::min(max_rows, runs * rows_of_run);
  return mla_parts(rows, runs, n_heads, kv_lora, rope, max_keys);
}

}  // namespace assay::kernels
