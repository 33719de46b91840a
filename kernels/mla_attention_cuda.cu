#include "kernels/cuda_check.cuh"
#include "kernels/mla_attention_cuda.h"
#include "kernels/mla_attention_tiled.cuh"
#include "kernels/row_dot.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {
namespace {

constexpr int kFoldAhead = 8;  // splits on their way

// What attend_tiled folds by itself when it has all splits, from its parts: a block to a pair, four
// columns to a thread.
__global__ void fold_splits(MlaAttentionCuda a, int n_splits, int split_keys) {
  extern __shared__ float2 factors[];  // (n_splits): of what is there, of what comes; then the sums
  await_previous();
  let_next_begin();
  const size_t pair = blockIdx.x;
  const int row = blockIdx.x / a.n_heads;
  const int n_keys = a.keys == nullptr ? a.position[row] + 1 : a.n_keys[row];
  const int n = (n_keys + split_keys - 1) / split_keys;
  auto* sums = reinterpret_cast<float*>(factors + n_splits);
  const float2* states = split_states(a, n_splits) + pair * n_splits;
  const int column = 4 * threadIdx.x;
  const float* part = a.parts + pair * n_splits * a.kv_lora + column;
  const auto fetch = [&](int first, float4(&v)[kFoldAhead]) {
#pragma unroll
    for (int i = 0; i < kFoldAhead; ++i)
      if (first + i < n && column < a.kv_lora)
        v[i] = *reinterpret_cast<const float4*>(part + static_cast<size_t>(first + i) * a.kv_lora);
  };
  float4 v[kFoldAhead];
  fetch(0, v);
  if (threadIdx.x < 32) {
    float past = -INFINITY;  // largest of the splits before these
    for (int first = 0; first < n; first += 32) {
      const int i = first + static_cast<int>(threadIdx.x);
      const float2 state = i < n ? states[i] : float2{-INFINITY, 0};
      float largest = state.x;  // up to this one
      for (int offset = 1; offset < 32; offset *= 2) {
        const float other = __shfl_up_sync(0xFFFFFFFFu, largest, offset);
        if (static_cast<int>(threadIdx.x) >= offset) largest = fmaxf(largest, other);
      }
      float before = __shfl_up_sync(0xFFFFFFFFu, largest, 1);
      before = threadIdx.x == 0 ? past : fmaxf(past, before);
      const Fold fold(before, state.x);
      if (i < n) {
        factors[i] = {fold.keep, fold.fresh};
        sums[i] = state.y;
      }
      past = fmaxf(past, __shfl_sync(0xFFFFFFFFu, largest, 31));
    }
  }
  __syncthreads();
  if (column >= a.kv_lora) return;
  float4 value = {0, 0, 0, 0};
  float sum = 0;
  for (int first = 0; first < n; first += kFoldAhead) {
    float4 next[kFoldAhead];
    fetch(first + kFoldAhead, next);
#pragma unroll
    for (int i = 0; i < kFoldAhead; ++i) {
      if (first + i >= n) break;
      // The first is kept as it is: nothing times 0, and 1 times it.
      const float2 f = first + i == 0 ? float2{0, 1} : factors[first + i];
      value.x = fmaf(v[i].x, f.y, value.x * f.x);
      value.y = fmaf(v[i].y, f.y, value.y * f.x);
      value.z = fmaf(v[i].z, f.y, value.z * f.x);
      value.w = fmaf(v[i].w, f.y, value.w * f.x);
      sum = fmaf(sums[first + i], f.y, sum * f.x);
      v[i] = next[i];
    }
  }
  *reinterpret_cast<float4*>(a.out + pair * a.kv_lora + column) = {value.x / sum, value.y / sum,
                                                                   value.z / sum, value.w / sum};
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

// 32 pairs to a block, or 16 where a run's are no more.
int pair_tiles(bool has_runs, int n_heads) { return has_runs || n_heads > 16 ? 2 : 1; }

int n_head_tiles(int n_heads) { return (n_heads + 31) / 32; }

constexpr int kEnoughBlocks = 32;  // a quarter of a large GPU

int n_splits(int kv_lora, int max_keys) {
  return (max_keys + mla_split_keys(kv_lora) - 1) / mla_split_keys(kv_lora);
}

template <int kSteps, int kPairTiles, bool kHalf>
void attend_in_tiles(const MlaAttentionCuda& a, CudaStream stream) {
  const int width = a.kv_lora + a.rope, n_slabs = width / (16 * kSteps),
            splits = a.parts == nullptr ? 1 : n_splits(a.kv_lora, a.max_keys),
            tiles = n_head_tiles(a.n_heads), split_keys = mla_split_keys(a.kv_lora);
  const std::size_t bytes = Shared<kPairTiles, kHalf>::bytes(width, n_slabs);
  const auto kernel = attend_tiled<kSteps, kPairTiles, kHalf>;
  static OncePerDevice prepare;
  prepare([&] {
    for (const void* f :
         {reinterpret_cast<const void*>(kernel), reinterpret_cast<const void*>(fold_splits)})
      CUDA_CHECK(cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(max_shared_bytes())));
  });
  const int n_runs = a.run == nullptr ? a.n_rows : a.n_runs;
  overlapped(kernel, dim3(n_runs * tiles, splits), kPairTiles * n_slabs * 32, bytes, stream, a,
             tiles, split_keys);
  if (a.parts == nullptr) return;
  // More than there are: fold_splits' loads may run ahead of the end of its loop.
  const std::size_t fold_bytes =
      (sizeof(float2) + sizeof(float)) * static_cast<std::size_t>(splits + kFoldAhead);
  overlapped(fold_splits, dim3(a.n_rows * a.n_heads), (a.kv_lora / 4 + 31) / 32 * 32, fold_bytes,
             stream, a, splits, split_keys);
}

template <int kSteps, int kPairTiles>
void attend_in_tiles(const MlaAttentionCuda& a, CudaStream stream) {
  if (a.half) return attend_in_tiles<kSteps, kPairTiles, true>(a, stream);
  attend_in_tiles<kSteps, kPairTiles, false>(a, stream);
}

}  // namespace

void mla_attention_cuda(const MlaAttentionCuda& a, CudaStream stream) {
  CHECK(a.kv_lora <= kMaxKvLoraCuda && a.rope <= kMaxRopeCuda) << a.kv_lora << ", " << a.rope;
  CHECK(a.run == nullptr || a.keys == nullptr);
  CHECK(n_splits(a.kv_lora, a.max_keys) < 65536) << a.max_keys;
  const int slab = slab_of(a.kv_lora, a.rope), tiles = pair_tiles(a.run != nullptr, a.n_heads);
  if (slab == 64)
    return tiles == 1 ? attend_in_tiles<4, 1>(a, stream) : attend_in_tiles<4, 2>(a, stream);
  if (slab == 32)
    return tiles == 1 ? attend_in_tiles<2, 1>(a, stream) : attend_in_tiles<2, 2>(a, stream);
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(a.kv_lora + a.rope + 64);
  overlapped(attend_row, dim3(a.n_rows, a.n_heads), kRowThreads, bytes, stream, a);
}

const char* mla_design(int kv_lora, int rope) {
  return slab_of(kv_lora, rope) > 0 ? "split keys, tensor cores" : "row by row";
}

std::size_t mla_parts(int n_rows, int n_runs, int n_heads, int kv_lora, int rope, int max_keys) {
  if (slab_of(kv_lora, rope) == 0 || n_runs * n_head_tiles(n_heads) > kEnoughBlocks) return 0;
  return static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_heads) *
         static_cast<std::size_t>(n_splits(kv_lora, max_keys)) *
         static_cast<std::size_t>(kv_lora + 2);
}

std::size_t mla_most_parts(int max_rows, int rows_of_run, int n_heads, int kv_lora, int rope,
                           int max_keys) {
  const int runs = std::min(max_rows, kEnoughBlocks / n_head_tiles(n_heads)),
            rows = std::min(max_rows, runs * rows_of_run);
  return mla_parts(rows, runs, n_heads, kv_lora, rope, max_keys);
}

}  // namespace assay::kernels
