#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/row_dot.cuh"

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

// Pair i of a vector whose rotated part begins at x.
__device__ void rotate_pair(const RopeCuda& rope, int row, int i, float* x) {
  const int half = rope.dim / 2;
  float& a = rope.interleaved ? x[2 * i] : x[i];
  float& b = rope.interleaved ? x[2 * i + 1] : x[i + half];
  const float c = rope.cosine[row * half + i], s = rope.sine[row * half + i], a0 = a, b0 = b;
  a = a0 * c - b0 * s;
  b = b0 * c + a0 * s;
}

__global__ void embed(DeviceMatrix table, const int* tokens, float* out) {
  const long long first = static_cast<long long>(tokens[blockIdx.x]) * table.n_cols;
  for (int i = threadIdx.x; i < table.n_cols; i += kThreads)
    out[static_cast<size_t>(blockIdx.x) * table.n_cols + i] = dense_value(table, first + i);
}

__global__ void rms_norm(const float* x, int x_stride, const float* weight, float eps, int n,
                         float* y, int y_stride) {
  x += static_cast<size_t>(blockIdx.x) * x_stride;
  y += static_cast<size_t>(blockIdx.x) * y_stride;
  const float factor = rms_factor(x, n, eps);
  for (int i = threadIdx.x; i < n; i += kThreads) y[i] = weight[i] * (x[i] * factor);
}

__global__ void rope_heads(RopeCuda rope, float* x, int row_stride, int head_stride, int n_heads) {
  const int half = rope.dim / 2;
  for (int i = threadIdx.x; i < n_heads * half; i += kThreads)
    rotate_pair(rope, blockIdx.x, i % half,
                x + static_cast<size_t>(blockIdx.x) * row_stride + (i / half) * head_stride);
}

__global__ void copy_heads(const float* x, int x_row_stride, int x_head_stride, float* y,
                           int y_row_stride, int y_head_stride, int n, int n_heads) {
  for (int i = threadIdx.x; i < n_heads * n; i += kThreads)
    y[static_cast<size_t>(blockIdx.x) * y_row_stride + i / n * y_head_stride + i % n] =
        x[static_cast<size_t>(blockIdx.x) * x_row_stride + i / n * x_head_stride + i % n];
}

__global__ void append_kv(AppendKvCuda a, RopeCuda rope) {
  const int row = blockIdx.x, width = a.kv_lora + rope.dim;
  const float* in = a.in + static_cast<size_t>(row) * width;
  float* out = a.cache[row] + static_cast<size_t>(a.position[row]) * width;
  const float factor = rms_factor(in, a.kv_lora, a.eps);
  for (int i = threadIdx.x; i < a.kv_lora; i += kThreads)
    out[i] = a.norm_weight[i] * (in[i] * factor);
  for (int i = threadIdx.x; i < rope.dim; i += kThreads) out[a.kv_lora + i] = in[a.kv_lora + i];
  __syncthreads();
  for (int i = threadIdx.x; i < rope.dim / 2; i += kThreads)
    rotate_pair(rope, row, i, out + a.kv_lora);
}

__global__ void append_index(AppendIndexCuda a, RopeCuda rope) {
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
  for (int i = threadIdx.x; i < rope.dim / 2; i += kThreads) rotate_pair(rope, row, i, out);
}

constexpr int kKeys = 64;  // of a block of the online softmax

__global__ void mla_attention(MlaAttentionCuda a) {
  extern __shared__ float shared[];  // q of the head, then scores of a block of keys
  const int row = blockIdx.x, head = blockIdx.y, width = a.kv_lora + a.rope;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float *q = shared, *p = shared + width;
  const float* q_in = a.q + (static_cast<size_t>(row) * a.n_heads + head) * width;
  for (int i = threadIdx.x; i < width; i += kThreads) q[i] = q_in[i];
  const float* cache = a.cache[row];
  const int* keys = a.keys == nullptr ? nullptr : a.keys + static_cast<size_t>(row) * a.keys_stride;
  const int n_keys = keys == nullptr ? a.position[row] + 1 : a.n_keys[row];
  const auto key_row = [&](int k) {
    return cache + static_cast<size_t>(keys == nullptr ? k : keys[k]) * width;
  };
  constexpr int kOwn = kMaxKvLoraCuda / kThreads;  // latent values of a thread
  float latent[kOwn] = {};
  float largest = -INFINITY, sum = 0;
  for (int first = 0; first < n_keys; first += kKeys) {
    const int n = min(kKeys, n_keys - first);
    __syncthreads();  // q is there; p is no longer read
    for (int k = warp; k < n; k += kWarpsOfBlock) {
      const float* kv = key_row(first + k);
      float dot = 0;
      for (int i = lane; i < width; i += 32) dot = fmaf(q[i], kv[i], dot);
      dot = warp_sum(dot);
      if (lane == 0) p[k] = dot * a.scale;
    }
    __syncthreads();
    float block_largest = -INFINITY;
    for (int k = 0; k < n; ++k) block_largest = fmaxf(block_largest, p[k]);
    const float next = fmaxf(largest, block_largest), keep = expf(largest - next);
    __syncthreads();
    if (threadIdx.x < n) p[threadIdx.x] = expf(p[threadIdx.x] - next);
    __syncthreads();
    float block_total = 0;
    for (int k = 0; k < n; ++k) block_total += p[k];
    sum = fmaf(sum, keep, block_total);
    largest = next;
    for (int o = 0; o < kOwn; ++o) {
      const int i = threadIdx.x + o * kThreads;
      if (i >= a.kv_lora) break;
      float value = latent[o] * keep;
      for (int k = 0; k < n; ++k) value = fmaf(p[k], key_row(first + k)[i], value);
      latent[o] = value;
    }
  }
  float* out = a.out + (static_cast<size_t>(row) * a.n_heads + head) * a.kv_lora;
  for (int o = 0; o < kOwn; ++o) {
    const int i = threadIdx.x + o * kThreads;
    if (i < a.kv_lora) out[i] = latent[o] / sum;
  }
}

// A thread to a key; the row's queries in shared memory.
__global__ void index_scores(IndexCuda a) {
  extern __shared__ float q[];
  const int row = blockIdx.y, n_keys = a.position[row] + 1;
  if (n_keys <= a.top_k) return;  // the scores decide nothing
  for (int i = threadIdx.x; i < a.n_heads * a.dim; i += kThreads)
    q[i] = a.q[static_cast<size_t>(row) * a.n_heads * a.dim + i];
  __syncthreads();
  const int key = blockIdx.x * kThreads + threadIdx.x;
  if (key >= n_keys) return;
  const float* k = a.cache[row] + static_cast<size_t>(key) * a.dim;
  const float dim_scale = 1.0f / sqrtf(static_cast<float>(a.dim)),
              head_scale = 1.0f / sqrtf(static_cast<float>(a.n_heads));
  float score = 0;
  for (int h = 0; h < a.n_heads; ++h) {
    float dot = 0;
    for (int i = 0; i < a.dim; ++i) dot = fmaf(q[h * a.dim + i], k[i], dot);
    const float weight = a.weights[static_cast<size_t>(row) * a.n_heads + h] * head_scale;
    score = fmaf(weight, fmaxf(dot * dim_scale, 0.0f), score);
  }
  a.scores[static_cast<size_t>(row) * a.max_keys + key] = score;
}

// Unsigned integers in the order of the floats; −0 as 0, NaN last.
__device__ unsigned ordered(float value) {
  if (isnan(value)) return 0;
  const unsigned bits = __float_as_uint(value == 0.0f ? 0.0f : value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

constexpr int kSelectThreads = 256;

// One block to a row: four histograms of 8 bits find the k-th largest score, a scan in ascending
// position keeps what is larger, and as many of its equals as there is room for.
__global__ void select_keys(IndexCuda a) {
  __shared__ int histogram[256], n_before[kSelectThreads], equal_before[kSelectThreads];
  __shared__ unsigned prefix, next_best;
  __shared__ int missing, base, equal_base;
  const int row = blockIdx.x, n = a.position[row] + 1, k = a.top_k, t = threadIdx.x;
  int* out = a.keys + static_cast<size_t>(row) * k;
  if (n <= k) {
    for (int i = t; i < n; i += kSelectThreads) out[i] = i;
    if (t == 0) {
      a.n_keys[row] = n;
      a.margin[row] = INFINITY;
    }
    return;
  }
  const float* scores = a.scores + static_cast<size_t>(row) * a.max_keys;
  if (t == 0) {
    prefix = 0;
    missing = k;
    next_best = 0;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    histogram[t] = 0;
    __syncthreads();
    const unsigned above = shift == 24 ? 0 : ~0u << (shift + 8);
    for (int i = t; i < n; i += kSelectThreads) {
      const unsigned v = ordered(scores[i]);
      if ((v & above) == (prefix & above)) atomicAdd(&histogram[v >> shift & 255u], 1);
    }
    __syncthreads();
    if (t == 0) {
      int bin = 255;
      while (histogram[bin] < missing) missing -= histogram[bin--];
      prefix |= static_cast<unsigned>(bin) << shift;
    }
    __syncthreads();
  }
  // `missing` of those equal to `prefix` are kept: the first ones.
  if (t == 0) base = equal_base = 0;
  __syncthreads();
  for (int first = 0; first < n; first += kSelectThreads) {
    const int i = first + t;
    const unsigned v = i < n ? ordered(scores[i]) : 0;
    const int larger = i < n && v > prefix, equal = i < n && v == prefix;
    if (i < n && v < prefix) atomicMax(&next_best, v);
    n_before[t] = larger;
    equal_before[t] = equal;
    __syncthreads();
    for (int step = 1; step < kSelectThreads; step *= 2) {
      const int l = t >= step ? n_before[t - step] : 0, e = t >= step ? equal_before[t - step] : 0;
      __syncthreads();
      n_before[t] += l;
      equal_before[t] += e;
      __syncthreads();
    }
    const int equals_so_far = equal_base + equal_before[t];  // this one included
    const int kept_equals = min(equals_so_far, missing);
    if (larger || (equal && equals_so_far <= missing))
      out[base + n_before[t] + kept_equals - 1] = i;
    __syncthreads();
    if (t == kSelectThreads - 1) {
      base += n_before[t];
      equal_base += equal_before[t];
    }
    __syncthreads();
  }
  if (t == 0) {
    a.n_keys[row] = k;
    const auto value = [](unsigned v) {
      return __uint_as_float((v & 0x80000000u) != 0 ? v & 0x7FFFFFFFu : ~v);
    };
    // Equal scores beyond the k-th leave no margin.
    a.margin[row] = equal_base > missing ? 0.0f : value(prefix) - value(next_best);
  }
}

// One warp to a row.
__global__ void route(RouteCuda a) {
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

}  // namespace

void embed_cuda(const DeviceMatrix& table, const int* tokens, int n_tokens, float* out,
                CudaStream stream) {
  embed<<<n_tokens, kThreads, 0, stream>>>(table, tokens, out);
  CUDA_CHECK(cudaGetLastError()) << n_tokens << " tokens";
}

void rms_norm_cuda(const float* x, int x_stride, const float* weight, float eps, int n, int n_rows,
                   float* y, int y_stride, CudaStream stream) {
  rms_norm<<<n_rows, kThreads, 0, stream>>>(x, x_stride, weight, eps, n, y, y_stride);
  CUDA_CHECK(cudaGetLastError()) << n_rows << " rows of " << n;
}

void rope_cuda(const RopeCuda& rope, float* x, int row_stride, int head_stride, int n_heads,
               int n_rows, CudaStream stream) {
  rope_heads<<<n_rows, kThreads, 0, stream>>>(rope, x, row_stride, head_stride, n_heads);
  CUDA_CHECK(cudaGetLastError()) << n_rows << " rows, " << n_heads << " heads";
}

void copy_heads_cuda(const float* x, int x_row_stride, int x_head_stride, float* y,
                     int y_row_stride, int y_head_stride, int n, int n_heads, int n_rows,
                     CudaStream stream) {
  copy_heads<<<n_rows, kThreads, 0, stream>>>(x, x_row_stride, x_head_stride, y, y_row_stride,
                                              y_head_stride, n, n_heads);
  CUDA_CHECK(cudaGetLastError()) << n_rows << " rows, " << n_heads << " heads";
}

void append_kv_cuda(const AppendKvCuda& a, const RopeCuda& rope, CudaStream stream) {
  append_kv<<<a.n_rows, kThreads, 0, stream>>>(a, rope);
  CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows";
}

void append_index_cuda(const AppendIndexCuda& a, const RopeCuda& rope, CudaStream stream) {
  append_index<<<a.n_rows, kThreads, 0, stream>>>(a, rope);
  CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows";
}

void mla_attention_cuda(const MlaAttentionCuda& a, CudaStream stream) {
  CHECK(a.kv_lora <= kMaxKvLoraCuda) << a.kv_lora;
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(a.kv_lora + a.rope + kKeys);
  mla_attention<<<dim3(a.n_rows, a.n_heads), kThreads, bytes, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows, " << a.n_heads << " heads";
}

void index_cuda(const IndexCuda& a, CudaStream stream) {
  CHECK(a.n_rows < 65536) << a.n_rows;
  if (a.max_keys > a.top_k) {
    const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(a.n_heads * a.dim);
    const dim3 grid((a.max_keys + kThreads - 1) / kThreads, a.n_rows);
    index_scores<<<grid, kThreads, bytes, stream>>>(a);
    CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows, " << a.max_keys << " keys";
  }
  select_keys<<<a.n_rows, kSelectThreads, 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows, " << a.max_keys << " keys";
}

void route_cuda(const RouteCuda& a, CudaStream stream) {
  CHECK(a.n_experts <= kMaxExpertsCuda && a.top_k <= kMaxTopExpertsCuda)
      << a.n_experts << ", " << a.top_k;
  route<<<a.n_rows, 32, 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.n_rows << " rows, " << a.n_experts << " experts";
}

}  // namespace assay::kernels
