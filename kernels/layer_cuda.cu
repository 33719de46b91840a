#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/row_dot.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {
namespace {

constexpr int kThreads = 128, kWarpsOfBlock = kThreads / 32;

// The same sum in every thread of a block of kThreads: a tree over lanes, then a chain over warps.
__device__ float block_sum(float value) {
  __shared__ float of_warp[kWarpsOfBlock];
  value = warp_sum(value);
  __syncthreads();  // of_warp may still be read from the call before
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < kWarpsOfBlock; ++w) sum += of_warp[w];
  return sum;
}

__device__ float rms_factor(const float* x, int n, float eps) {
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) sum = fmaf(x[i], x[i], sum);
  return 1.0f / sqrtf(block_sum(sum) / static_cast<float>(n) + eps);
}

// Pair i of a vector's rotated part.
__device__ void rotate_pair(const RopeCuda& rope, int row, int i, const float* from, float* to) {
  const int half = rope.dim / 2;
  const int first = rope.interleaved ? 2 * i : i, second = rope.interleaved ? 2 * i + 1 : i + half;
  const float c = rope.cosine[row * half + i], s = rope.sine[row * half + i];
  const float a = from[first], b = from[second];
  to[first] = a * c - b * s;
  to[second] = b * c + a * s;
}

__global__ void embed(DeviceMatrix table, const int* tokens, float* out) {
  await_previous();
  let_next_begin();
  const long long first = static_cast<long long>(tokens[blockIdx.x]) * table.n_cols;
  for (int i = threadIdx.x; i < table.n_cols; i += kThreads)
    out[static_cast<size_t>(blockIdx.x) * table.n_cols + i] = dense_value(table, first + i);
}

__global__ void rms_norm(const float* x, int x_stride, const float* weight, float eps, int n,
                         float* y, int y_stride) {
  await_previous();
  let_next_begin();
  x += static_cast<size_t>(blockIdx.x) * x_stride;
  y += static_cast<size_t>(blockIdx.x) * y_stride;
  const float factor = rms_factor(x, n, eps);
  for (int i = threadIdx.x; i < n; i += kThreads) y[i] = weight[i] * (x[i] * factor);
}

__global__ void clear(float* out, size_t n) {
  await_previous();
  let_next_begin();
  const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = 0;
}

__global__ void sum_parts(const float* parts, int n_parts, size_t n, float* out) {
  await_previous();
  let_next_begin();
  const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  float sum = parts[i];
  for (int p = 1; p < n_parts; ++p) sum += parts[p * n + i];
  out[i] = sum;
}

__global__ void rope_heads(RopeCuda rope, HeadsCuda<const float> from, HeadsCuda<float> to,
                           int n_heads) {
  await_previous();
  let_next_begin();
  const size_t row = blockIdx.x;
  const int half = rope.dim / 2;
  for (int i = threadIdx.x; i < n_heads * half; i += kThreads)
    rotate_pair(rope, blockIdx.x, i % half,
                from.data + row * from.row_stride + i / half * from.head_stride,
                to.data + row * to.row_stride + i / half * to.head_stride);
}

__global__ void append_kv(AppendKvCuda a, RopeCuda rope) {
  __shared__ float rotated[kMaxRopeCuda];
  await_previous();
  let_next_begin();
  const int row = blockIdx.x, width = a.kv_lora + rope.dim;
  const float* in = a.in + static_cast<size_t>(row) * width;
  auto* out =
      reinterpret_cast<__half*>(a.cache[row]) + static_cast<size_t>(a.position[row]) * 2 * width;
  const auto write = [&](int i, float value) {
    const SplitHalf v = split_half(value);
    out[i] = v.high;
    out[width + i] = v.low;
  };
  for (int i = threadIdx.x; i < rope.dim / 2; i += kThreads)
    rotate_pair(rope, row, i, in + a.kv_lora, rotated);
  const float factor = rms_factor(in, a.kv_lora, a.eps);  // a barrier: `rotated` is there
  for (int i = threadIdx.x; i < a.kv_lora; i += kThreads)
    write(i, a.norm_weight[i] * (in[i] * factor));
  for (int i = threadIdx.x; i < rope.dim; i += kThreads) write(a.kv_lora + i, rotated[i]);
}

__global__ void append_index(AppendIndexCuda a, RopeCuda rope) {
  await_previous();
  let_next_begin();
  const int row = blockIdx.x;
  const float* in = a.in + static_cast<size_t>(row) * a.dim;
  float* out = a.cache[row] + static_cast<size_t>(a.position[row]) * a.dim;
  float sum = 0;
  for (int i = threadIdx.x; i < a.dim; i += kThreads) sum += in[i];
  const float mean = block_sum(sum) / static_cast<float>(a.dim);
  float squares = 0;
  for (int i = threadIdx.x; i < a.dim; i += kThreads)
    squares = fmaf(in[i] - mean, in[i] - mean, squares);
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(a.dim) + a.eps);
  for (int i = threadIdx.x; i < a.dim; i += kThreads)
    out[i] = a.norm_weight[i] * ((in[i] - mean) * factor) + a.norm_bias[i];
  __syncthreads();
  for (int i = threadIdx.x; i < rope.dim / 2; i += kThreads) rotate_pair(rope, row, i, out, out);
}

// One warp to a row.
__global__ void route(RouteCuda a) {
  await_previous();
  let_next_begin();
  const int row = blockIdx.x, lane = threadIdx.x;
  constexpr int kOwn = kMaxExpertsCuda / 32;
  double choice[kOwn];
  const float* logits = a.logits + static_cast<size_t>(row) * a.n_experts;
  const auto score_of = [&](int e) { return 1.0 / (1.0 + exp(-static_cast<double>(logits[e]))); };
  for (int o = 0; o < kOwn; ++o) {
    const int e = lane + 32 * o;
    choice[o] = e < a.n_experts ? score_of(e) + static_cast<double>(a.bias[e]) : -INFINITY;
    if (isnan(choice[o])) choice[o] = -INFINITY;
  }
  __shared__ int chosen[kMaxTopExpertsCuda + 1];
  __shared__ double chosen_value[kMaxTopExpertsCuda + 1];
  const int n = min(a.top_k + 1, a.n_experts);
  for (int k = 0; k < n; ++k) {
    double best = -INFINITY;
    int at = a.n_experts;
    for (int o = 0; o < kOwn; ++o) {
      const int e = lane + 32 * o;
      bool taken = e >= a.n_experts;
      for (int i = 0; i < k; ++i) taken = taken || chosen[i] == e;
      if (!taken && (at == a.n_experts || choice[o] > best)) {
        best = choice[o];
        at = e;
      }
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const double other = __shfl_xor_sync(0xFFFFFFFFu, best, offset);
      const int other_at = __shfl_xor_sync(0xFFFFFFFFu, at, offset);
      const bool better = at == a.n_experts || other > best || (other == best && other_at < at);
      if (other_at < a.n_experts && better) {
        best = other;
        at = other_at;
      }
    }
    if (lane == 0) {
      chosen[k] = at;
      chosen_value[k] = best;
    }
    __syncwarp();
  }
  if (lane != 0) return;
  a.margin[row] = a.top_k < a.n_experts
                      ? static_cast<float>(chosen_value[a.top_k - 1] - chosen_value[a.top_k])
                      : INFINITY;
  for (int i = 1; i < a.top_k; ++i)  // ascending experts
    for (int j = i; j > 0 && chosen[j] < chosen[j - 1]; --j) {
      const int e = chosen[j];
      chosen[j] = chosen[j - 1];
      chosen[j - 1] = e;
    }
  double sum = 0;
  for (int i = 0; i < a.top_k; ++i) sum += score_of(chosen[i]);
  const double scale = static_cast<double>(a.scaling) / (a.normalise ? sum + 1e-20 : 1.0);
  for (int i = 0; i < a.top_k; ++i) {
    a.expert[row * a.top_k + i] = chosen[i];
    a.weight[row * a.top_k + i] = static_cast<float>(score_of(chosen[i]) * scale);
  }
}

// Blocks of kThreads for n values.
unsigned blocks_of(std::size_t n) {
  const std::size_t n_blocks = (n + kThreads - 1) / kThreads;
  CHECK(n > 0 && n_blocks < std::size_t{1} << 31) << n;
  return static_cast<unsigned>(n_blocks);
}

}  // namespace

void embed_cuda(const DeviceMatrix& table, const int* tokens, int n_tokens, float* out,
                CudaStream stream) {
  overlapped(embed, dim3(n_tokens), kThreads, 0, stream, table, tokens, out);
}

void rms_norm_cuda(const float* x, int x_stride, const float* weight, float eps, int n, int n_rows,
                   float* y, int y_stride, CudaStream stream) {
  overlapped(rms_norm, dim3(n_rows), kThreads, 0, stream, x, x_stride, weight, eps, n, y, y_stride);
}

void clear_cuda(float* out, std::size_t n, CudaStream stream) {
  overlapped(clear, dim3(blocks_of(n)), kThreads, 0, stream, out, n);
}

void sum_parts_cuda(const float* parts, int n_parts, std::size_t n, float* out, CudaStream stream) {
  CHECK(n_parts > 0) << n_parts;
  overlapped(sum_parts, dim3(blocks_of(n)), kThreads, 0, stream, parts, n_parts, n, out);
}

void rope_cuda(const RopeCuda& rope, HeadsCuda<const float> from, HeadsCuda<float> to, int n_heads,
               int n_rows, CudaStream stream) {
  overlapped(rope_heads, dim3(n_rows), kThreads, 0, stream, rope, from, to, n_heads);
}

void append_kv_cuda(const AppendKvCuda& a, const RopeCuda& rope, CudaStream stream) {
  CHECK(rope.dim <= kMaxRopeCuda) << rope.dim;
  overlapped(append_kv, dim3(a.n_rows), kThreads, 0, stream, a, rope);
}

void append_index_cuda(const AppendIndexCuda& a, const RopeCuda& rope, CudaStream stream) {
  overlapped(append_index, dim3(a.n_rows), kThreads, 0, stream, a, rope);
}

void route_cuda(const RouteCuda& a, CudaStream stream) {
  CHECK(a.n_experts <= kMaxExpertsCuda && a.top_k <= kMaxTopExpertsCuda)
      << a.n_experts << ", " << a.top_k;
  overlapped(route, dim3(a.n_rows), 32, 0, stream, a);
}

}  // namespace assay::kernels
