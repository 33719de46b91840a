#include <cmath>

#include "kernels/cuda_check.cuh"
#include "kernels/indexer_cuda.h"
#include "kernels/mma_tile.cuh"
#include "kernels/split_bf16.cuh"

namespace assay::kernels {
namespace {

// Tensor cores: a block takes a run's (row, head) pairs, whose queries it keeps in shared memory in
// three parts, and walks over keys. A warp has 16 of them at a time, split, in registers: for every
// 16 pairs it reads their queries' parts once and multiplies.
constexpr int kParts = 3, kScoreThreads = 128, kWarpKeys = 16;
constexpr int kBlockKeys = kScoreThreads / 32 * kWarpKeys;

struct ScoreTiles {
  int padded_heads;  // index_padded_heads
  int n_pairs;       // that shared memory has room for: a multiple of 16
  float scale;
};

constexpr std::size_t score_bytes(int n_pairs, int dim) {
  return static_cast<std::size_t>(n_pairs) *
         (kParts * sizeof(__nv_bfloat16) * static_cast<std::size_t>(dim) + sizeof(float));
}

// Of a pair's row in shared memory: pieces of 16 bytes, exchanged so that ldmatrix finds those of
// eight rows in different banks.
__device__ inline int swizzled(int pair, int piece) { return (piece ^ pair % 8) << 4; }

// A lane of a fragment of keys has four neighbouring dimensions of one key, d … d + 3 of every 16:
// as columns d / 2, d / 2 + 1 and 8 more. So queries' dimensions are laid out in that order too.
template <int kSteps>
__device__ void stage_queries(const IndexCuda& a, const ScoreTiles& tiles, int first_row,
                              int end_row, unsigned char* queries, float* weights) {
  constexpr int kDim = 16 * kSteps, kQuads = kDim / 4;
  const int n_pairs = ((end_row - first_row) * tiles.padded_heads + 15) / 16 * 16;
  const auto head_of = [&](int pair) {  // of all rows', or none
    const int row = first_row + pair / tiles.padded_heads, head = pair % tiles.padded_heads;
    return row < end_row && head < a.n_heads ? row * a.n_heads + head : -1;
  };
  for (int i = threadIdx.x; i < n_pairs * kQuads; i += kScoreThreads) {
    const int pair = i / kQuads, quad = i % kQuads, head = head_of(pair);
    float4 v = {0, 0, 0, 0};
    if (head >= 0)
      v = *reinterpret_cast<const float4*>(a.q + static_cast<size_t>(head) * kDim + 4 * quad);
    const SplitBf16 first = split_bf16(v.x, v.y), second = split_bf16(v.z, v.w);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      unsigned char* to = queries + (p * tiles.n_pairs + pair) * 2 * kDim + quad % 4 * 4;
      *reinterpret_cast<unsigned*>(to + swizzled(pair, quad / 4 * 2)) = first.part[p];
      *reinterpret_cast<unsigned*>(to + swizzled(pair, quad / 4 * 2 + 1)) = second.part[p];
    }
  }
  for (int i = threadIdx.x; i < n_pairs; i += kScoreThreads)
    weights[i] = head_of(i) >= 0 ? a.weights[head_of(i)] : 0.0f;
}

// Products of two parts; each size has a sum of its own, the largest the first. Those of one sum do
// not follow each other at once, so that none waits.
struct Product {
  int query, key, sum;
};
__device__ constexpr Product kProducts[] = {{1, 1, 2}, {0, 1, 1}, {0, 2, 2},
                                            {1, 0, 1}, {2, 0, 2}, {0, 0, 0}};

// What lanes of fragments have: rows `group` and `group + 8` of 16 pairs, columns `column` and the
// next of 8 keys.
template <int kSteps>
__global__ void __launch_bounds__(kScoreThreads, 3) score_tiles(IndexCuda a, ScoreTiles tiles) {
  constexpr int kDim = 16 * kSteps;
  extern __shared__ __align__(16) unsigned char queries[];  // (kParts, n_pairs, kDim) bfloat16
  auto* weights = reinterpret_cast<float*>(queries + kParts * tiles.n_pairs * 2 * kDim);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = result_row(lane), column = result_column(lane);
  const int first_row = a.run == nullptr ? blockIdx.y : a.run[blockIdx.y];
  const int end_row = a.run == nullptr ? first_row + 1 : a.run[blockIdx.y + 1];
  const int n_keys = a.position[end_row - 1] + 1;
  const float* cache = a.cache[first_row];
  int first_key = blockIdx.x * kBlockKeys;
  // Otherwise the scores decide nothing.
  const bool is_wanted = n_keys > a.top_k && first_key < n_keys;

  float4 raw[2][kSteps];  // of 8 keys, then 8 more; past the end the last one again
  const auto fetch = [&] {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = min(first_key + warp * kWarpKeys + n * 8 + lane / 4, n_keys - 1);
      const auto* from = reinterpret_cast<const float4*>(cache + static_cast<size_t>(key) * kDim);
#pragma unroll
      for (int s = 0; s < kSteps; ++s) raw[n][s] = from[s * 4 + lane % 4];
    }
  };
  if (is_wanted) fetch();
  await_previous();
  let_next_begin();
  if (!is_wanted) return;
  stage_queries<kSteps>(a, tiles, first_row, end_row, queries, weights);
  __syncthreads();

  const int n_tiles = ((end_row - first_row) * tiles.padded_heads + 15) / 16;
  const int tiles_of_row = max(1, tiles.padded_heads / 16);
  const int rows_of_tree = min(8, tiles.padded_heads);  // lanes' rows that are one row's heads
  const auto write = [&](int row, int n, float first, float second) {
    for (int offset = 4; offset < 4 * rows_of_tree; offset *= 2) {
      first += __shfl_xor_sync(0xFFFFFFFFu, first, offset);
      second += __shfl_xor_sync(0xFFFFFFFFu, second, offset);
    }
    if (group % rows_of_tree != 0 || row >= end_row) return;
    const int key = first_key + warp * kWarpKeys + n * 8 + column, last = a.position[row];
    float* to = a.scores + static_cast<size_t>(row) * a.max_keys + key;
    if (key <= last) to[0] = tiles.scale * first;
    if (key + 1 <= last) to[1] = tiles.scale * second;
  };

  while (true) {
    unsigned keys[kParts][2][kSteps][2];
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const SplitBf16 first = split_bf16(raw[n][s].x, raw[n][s].y),
                        second = split_bf16(raw[n][s].z, raw[n][s].w);
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
          keys[p][n][s][0] = first.part[p];
          keys[p][n][s][1] = second.part[p];
        }
      }
    float score[2][2][2] = {};  // of rows group and group + 8; 8 keys and 8 more; two columns
    for (int tile = 0; tile < n_tiles; ++tile) {
      float sum[3][2][4] = {};
      const int pair = tile * 16 + left_row(lane);
      const unsigned row = shared_address(queries) + pair * 2 * kDim;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        unsigned q[kParts][4];
#pragma unroll
        for (int p = 0; p < kParts; ++p)
          load_matrices(
              q[p], row + p * tiles.n_pairs * 2 * kDim + swizzled(pair, 2 * s + left_piece(lane)));
#pragma unroll
        for (int i = 0; i < 6; ++i)
#pragma unroll
          for (int n = 0; n < 2; ++n)
            multiply_add(sum[kProducts[i].sum][n], q[kProducts[i].query],
                         keys[kProducts[i].key][n][s][0], keys[kProducts[i].key][n][s][1]);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float weight = weights[tile * 16 + group + 8 * r];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int at = 2 * r + c;
            const float dot = sum[0][n][at] + (sum[1][n][at] + sum[2][n][at]);
            score[r][n][c] = fmaf(weight, fmaxf(dot, 0.0f), score[r][n][c]);
          }
      }
      if ((tile + 1) % tiles_of_row != 0) continue;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float(&low)[2] = score[0][n], (&high)[2] = score[1][n];
        if (tiles.padded_heads >= 16) {
          write(first_row + tile / tiles_of_row, n, low[0] + high[0], low[1] + high[1]);
        } else {
          write(first_row + (tile * 16 + group) / tiles.padded_heads, n, low[0], low[1]);
          write(first_row + (tile * 16 + group + 8) / tiles.padded_heads, n, high[0], high[1]);
        }
        low[0] = low[1] = high[0] = high[1] = 0;
      }
    }
    first_key += gridDim.x * kBlockKeys;
    if (first_key >= n_keys) return;
    fetch();
  }
}

// Any shape: a thread to a key, the row's queries in shared memory.
constexpr int kRowThreads = 128;
__global__ void score_keys(IndexCuda a, float scale) {
  extern __shared__ float q[];
  await_previous();
  let_next_begin();
  const int row = blockIdx.y, n_keys = a.position[row] + 1;
  if (n_keys <= a.top_k) return;  // the scores decide nothing
  for (int i = threadIdx.x; i < a.n_heads * a.dim; i += kRowThreads)
    q[i] = a.q[static_cast<size_t>(row) * a.n_heads * a.dim + i];
  __syncthreads();
  const int key = blockIdx.x * kRowThreads + threadIdx.x;
  if (key >= n_keys) return;
  const float* k = a.cache[row] + static_cast<size_t>(key) * a.dim;
  float score = 0;
  for (int h = 0; h < a.n_heads; ++h) {
    float dot = 0;
    for (int i = 0; i < a.dim; ++i) dot = fmaf(q[h * a.dim + i], k[i], dot);
    score = fmaf(a.weights[static_cast<size_t>(row) * a.n_heads + h], fmaxf(dot, 0.0f), score);
  }
  a.scores[static_cast<size_t>(row) * a.max_keys + key] = scale * score;
}

int pairs_of_block(int n_rows, int n_heads) {
  return (n_rows * index_padded_heads(n_heads) + 15) / 16 * 16;
}

bool is_tiled(int n_heads, int dim) {
  return (dim == 64 || dim == 128) &&
         score_bytes(pairs_of_block(index_rows_of_run(n_heads), n_heads), dim) <=
             max_shared_bytes();
}

template <int kSteps>
void score_in_tiles(const IndexCuda& a, float scale, CudaStream stream) {
  static OncePerDevice prepare;
  prepare([] {
    CUDA_CHECK(cudaFuncSetAttribute(score_tiles<kSteps>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(max_shared_bytes())));
  });
  const bool shares = a.run != nullptr && a.n_runs < a.n_rows;
  const int n_runs = a.run == nullptr ? a.n_rows : a.n_runs;
  const ScoreTiles tiles = {
      .padded_heads = index_padded_heads(a.n_heads),
      .n_pairs = pairs_of_block(shares ? index_rows_of_run(a.n_heads) : 1, a.n_heads),
      .scale = scale};
  // Enough blocks to fill the device several times; beyond that, one that walks on saves staging.
  const int n_enough = (16 * n_multiprocessors() + n_runs - 1) / n_runs;
  const int n_key_blocks = (a.max_keys + kBlockKeys - 1) / kBlockKeys;
  overlapped(score_tiles<kSteps>, dim3(std::min(n_enough, n_key_blocks), n_runs), kScoreThreads,
             score_bytes(tiles.n_pairs, a.dim), stream, a, tiles);
}

}  // namespace

const char* index_design(int n_heads, int dim) {
  return is_tiled(n_heads, dim) ? "tensor cores" : "key by key";
}

void index_scores_cuda(const IndexCuda& a, CudaStream stream) {
  CHECK(a.n_rows < 65536) << a.n_rows;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(a.n_heads * a.dim)));
  if (is_tiled(a.n_heads, a.dim))
    return a.dim == 64 ? score_in_tiles<4>(a, scale, stream) : score_in_tiles<8>(a, scale, stream);
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(a.n_heads * a.dim);
  const dim3 grid((a.max_keys + kRowThreads - 1) / kRowThreads, a.n_rows);
  overlapped(score_keys, grid, kRowThreads, bytes, stream, a, scale);
}

void index_cuda(const IndexCuda& a, CudaStream stream) {
  if (a.max_keys > a.top_k) index_scores_cuda(a, stream);
  select_top_k_cuda(a, stream);
}

}  // namespace assay::kernels
