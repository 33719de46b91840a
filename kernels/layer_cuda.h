// What stands between a layer's projections, on a GPU, beside attention and the indexer: embedding,
// norms, RoPE, cache rows, routing (route_cuda.cu). Float32 throughout; every output depends on its
// own row alone, in a fixed order. All pointers are device pointers. What a step uploads before its
// first launch is read while the launch ahead still runs: weights, biases, RoPE's angles, cache
// pointers, positions.
#pragma once

#include <cstdint>

#include "kernels/cuda_memory.h"
#include "kernels/device_matrix.h"

namespace assay::kernels {

// out (n_tokens, n_cols) = rows `tokens` of a dense table.
void embed_cuda(const DeviceMatrix& table, const int* tokens, int n_tokens, float* out,
                CudaStream stream);

// y = weight * (x * rsqrt(mean(x²) + eps)) for each of n_rows rows of n values; y may be x.
//
// A square passes through at most 26 roundings on its way into the sum: 16 of its thread's chain
// (four pieces of four), 5 of the tree over lanes and 5 of that over warps. All are positive, so
// the sum errs by 26 of them relative to itself, the mean plus eps by 28, its root by 14; root,
// reciprocal, two products and the reference's own float are 5 more, and one covers their products.
inline constexpr int kMaxNormCuda = 16384;                 // values of a row
inline constexpr double kRmsNormCudaBound = 20 * 0x1p-24;  // of y relative to the exact value
void rms_norm_cuda(const float* x, int x_stride, const float* weight, float eps, int n, int n_rows,
                   float* y, int y_stride, CudaStream stream);

// out (n) = 0. A kernel, not a copy engine's work: those behind it begin early (cuda_check.cuh).
void clear_cuda(float* out, std::size_t n, CudaStream stream);

// out (n) = parts (n_parts, n), added up in their order.
void sum_parts_cuda(const float* parts, int n_parts, std::size_t n, float* out, CudaStream stream);

// cos and sin of each row's position: (n_rows, dim / 2), as RopeTable gives them.
struct RopeCuda {
  const float *cosine, *sine;
  int dim;
  bool interleaved;
};

// Vectors of n_heads heads a row: head h of row r at data + r * row_stride + h * head_stride.
template <class T>
struct HeadsCuda {
  T* data;
  int row_stride, head_stride;
};
// to's first rope.dim values of every vector = from's, rotated. They may be the same. rope.dim <=
// kMaxRopeCuda.
void rope_cuda(const RopeCuda& rope, HeadsCuda<const float> from, HeadsCuda<float> to, int n_heads,
               int n_rows, CudaStream stream);

// The cache rows of each token: latent = rms_norm(in[:kv_lora]), rope key = in[kv_lora:] rotated,
// as MlaAttentionCuda has them. cache[r] points to (positions, 2, kv_lora + rope.dim); kv_lora <=
// kMaxKvLoraCuda, rope.dim <= kMaxRopeCuda.
struct AppendKvCuda {
  const float* in;  // (n_rows, kv_lora + rope.dim)
  const float* norm_weight;
  float eps;
  int kv_lora, n_rows;
  std::uint16_t* const* cache;
  const int* position;  // (n_rows)
};
void append_kv_cuda(const AppendKvCuda& args, const RopeCuda& rope, CudaStream stream);

// The indexer's keys: layer_norm, then the first rope.dim values rotated. cache[r]: (positions,
// dim); rope.dim <= dim <= kMaxIndexDimCuda.
inline constexpr int kMaxIndexDimCuda = 1024;
struct AppendIndexCuda {
  const float* in;  // (n_rows, dim)
  const float *norm_weight, *norm_bias;
  float eps;
  int dim, n_rows;
  float* const* cache;
  const int* position;
};
void append_index_cuda(const AppendIndexCuda& args, const RopeCuda& rope, CudaStream stream);

// The sigmoid router (route.h), in double like the reference. Among equal scores the lower expert
// wins; a NaN logit ranks last. top_k <= n_experts.
struct RouteCuda {
  const float* logits;  // (n_rows, n_experts)
  const float* bias;    // (n_experts)
  int n_rows, n_experts, top_k;
  bool normalise;
  float scaling;
  int* expert;    // (n_rows, top_k), ascending
  float* weight;  // (n_rows, top_k)
  float* margin;  // (n_rows)
};
void route_cuda(const RouteCuda& args, CudaStream stream);
inline constexpr int kMaxExpertsCuda = 1024, kMaxTopExpertsCuda = 32;

}  // namespace assay::kernels
