#include <algorithm>

#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/norm_row.cuh"
#include "kernels/split_half.cuh"

namespace assay::kernels {
namespace {

constexpr int kThreads = 128;

// What turns pair i of a row's vectors, and where in a vector the pair lies.
struct Turn {
  float cosine, sine;
  int first, second;
};
__device__ Turn turn_of(const RopeCuda& rope, int row, int i) {
  const int half = rope.dim / 2;
  return {rope.cosine[row * half + i], rope.sine[row * half + i], rope.interleaved ? 2 * i : i,
          rope.interleaved ? 2 * i + 1 : i + half};
}
__device__ float2 turned(const Turn& t, const float* from) {
  const float a = from[t.first], b = from[t.second];
  return {a * t.cosine - b * t.sine, b * t.cosine + a * t.sine};
}

// Eight neighbouring values of a dense matrix, which begin at a multiple of 16 bytes.
struct Eight {
  float4 low, high;
};
__device__ Eight eight_values(const DeviceMatrix& m, long long first) {
  if (m.kind == DeviceMatrix::Kind::kF32) {
    const float4* v = reinterpret_cast<const float4*>(static_cast<const float*>(m.values) + first);
    return {v[0], v[1]};
  }
  const uint4 p =
      *reinterpret_cast<const uint4*>(static_cast<const unsigned short*>(m.values) + first);
  if (m.kind == DeviceMatrix::Kind::kBf16)
    return {{bf16_low(p.x), bf16_high(p.x), bf16_low(p.y), bf16_high(p.y)},
            {bf16_low(p.z), bf16_high(p.z), bf16_low(p.w), bf16_high(p.w)}};
  const auto halves = [](unsigned word) {
    return __half22float2(*reinterpret_cast<const __half2*>(&word));
  };
  const float2 a = halves(p.x), b = halves(p.y), c = halves(p.z), d = halves(p.w);
  return {{a.x, a.y, b.x, b.y}, {c.x, c.y, d.x, d.y}};
}

// A thread copies kEmbedded neighbouring values. Grid: tokens, parts of their rows.
constexpr int kEmbedded = 8;

template <bool kAligned>
__global__ void embed(DeviceMatrix table, const int* tokens, float* out) {
  const int n = table.n_cols, i = (blockIdx.y * kThreads + threadIdx.x) * kEmbedded;
  await_previous();
  let_next_begin();
  if (i >= n) return;
  const long long first = static_cast<long long>(tokens[blockIdx.x]) * n + i;
  out += static_cast<size_t>(blockIdx.x) * n + i;
  if constexpr (kAligned) {
    const Eight v = eight_values(table, first);
    reinterpret_cast<float4*>(out)[0] = v.low;
    reinterpret_cast<float4*>(out)[1] = v.high;
  } else {
    float v[kEmbedded];
#pragma unroll
    for (int k = 0; k < kEmbedded; ++k) v[k] = i + k < n ? dense_value(table, first + k) : 0;
#pragma unroll
    for (int k = 0; k < kEmbedded; ++k)
      if (i + k < n) out[k] = v[k];
  }
}

// A block to a row.
template <int kPieces, bool kAligned>
__global__ void __launch_bounds__(kMaxNormCuda / 16)
    rms_norm(const float* x, int x_stride, const float* weight, float eps, int n, float* y,
             int y_stride) {
  const auto first_of = [](int piece) { return 4 * (piece * blockDim.x + threadIdx.x); };
  float4 w[kPieces], v[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) w[p] = load_piece(weight, first_of(p), n, kAligned);
  await_previous();
  let_next_begin();
  x += static_cast<size_t>(blockIdx.x) * x_stride;
  y += static_cast<size_t>(blockIdx.x) * y_stride;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) v[p] = load_piece(x, first_of(p), n, kAligned);
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) squares = fma4(v[p], v[p], squares);
  const float factor = rms_factor(block_sum(squares), n, eps);
#pragma unroll
  for (int p = 0; p < kPieces; ++p)
    store_piece(y, first_of(p), n, kAligned, scaled(w[p], v[p], factor));
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

// A thread to a pair. Grid: rows, blockDim.y heads at a time.
__global__ void rope_heads(RopeCuda rope, HeadsCuda<const float> from, HeadsCuda<float> to,
                           int n_heads) {
  const int head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= n_heads) return await_previous();
  const Turn turn = turn_of(rope, blockIdx.x, threadIdx.x);
  await_previous();
  let_next_begin();
  const size_t row = blockIdx.x;
  const float2 pair = turned(turn, from.data + row * from.row_stride + head * from.head_stride);
  float* out = to.data + row * to.row_stride + head * to.head_stride;
  out[turn.first] = pair.x;
  out[turn.second] = pair.y;
}

// A row's two halves in the cache.
struct CacheRow {
  __half *high, *low;
  __device__ void write(int i, float value) const {
    const SplitHalf v = split_half(value);
    high[i] = v.high;
    low[i] = v.low;
  }
  __device__ void write_piece(int i, int n, float4 v) const {
    if (i + 3 < n &&
        (reinterpret_cast<size_t>(high + i) | reinterpret_cast<size_t>(low + i)) % 8 == 0) {
      const SplitHalf2 a = split_half2(v.x, v.y), b = split_half2(v.z, v.w);
      *reinterpret_cast<uint2*>(high + i) = {a.high, b.high};
      *reinterpret_cast<uint2*>(low + i) = {a.low, b.low};
      return;
    }
    if (i < n) write(i, v.x);
    if (i + 1 < n) write(i + 1, v.y);
    if (i + 2 < n) write(i + 2, v.z);
    if (i + 3 < n) write(i + 3, v.w);
  }
};

// A block to a row: its first warps norm the latent, a piece to a thread, the others turn a pair
// each of the rope key.
__global__ void append_kv(AppendKvCuda a, RopeCuda rope, bool aligned) {
  const int row = blockIdx.x, n = a.kv_lora, width = n + rope.dim;
  const int n_norm = threads_of_row(n, 1), i = 4 * threadIdx.x, pair = threadIdx.x - n_norm;
  const bool norms = pair < 0, turns = pair >= 0 && pair < rope.dim / 2;
  __half* out =
      reinterpret_cast<__half*>(a.cache[row]) + static_cast<size_t>(a.position[row]) * 2 * width;
  const CacheRow cache = {out, out + width};
  const float4 weight = norms ? load_piece(a.norm_weight, i, n, aligned) : float4{};
  const Turn turn = turns ? turn_of(rope, row, pair) : Turn{};
  await_previous();
  let_next_begin();
  const float* in = a.in + static_cast<size_t>(row) * width;
  const float4 v = norms ? load_piece(in, i, n, aligned) : float4{};
  if (turns) {
    const float2 key = turned(turn, in + n);
    cache.write(n + turn.first, key.x);
    cache.write(n + turn.second, key.y);
  }
  const float factor = rms_factor(block_sum(fma4(v, v, 0)), n, a.eps);
  if (norms) cache.write_piece(i, n, scaled(weight, v, factor));
}

// v - mean of the values i … i + 3 that are among the n; zeros past the end.
__device__ float4 centred(float4 v, float mean, int i, int n) {
  return {i < n ? v.x - mean : 0, i + 1 < n ? v.y - mean : 0, i + 2 < n ? v.z - mean : 0,
          i + 3 < n ? v.w - mean : 0};
}

// A block to a row, a piece to a thread.
__global__ void append_index(AppendIndexCuda a, RopeCuda rope, bool aligned) {
  __shared__ __align__(16) float normed[kMaxIndexDimCuda];
  const int row = blockIdx.x, n = a.dim, i = 4 * threadIdx.x;
  float* out = a.cache[row] + static_cast<size_t>(a.position[row]) * n;
  const float4 weight = load_piece(a.norm_weight, i, n, aligned),
               bias = load_piece(a.norm_bias, i, n, aligned);
  await_previous();
  let_next_begin();
  const float4 v = load_piece(a.in + static_cast<size_t>(row) * n, i, n, aligned);
  const float mean = block_sum((v.x + v.y) + (v.z + v.w)) / static_cast<float>(n);
  const float4 d = centred(v, mean, i, n);
  const float factor = rms_factor(block_sum(fma4(d, d, 0)), n, a.eps);
  const float4 y = scaled(weight, d, factor);
  store_piece(normed, i, n, aligned, {y.x + bias.x, y.y + bias.y, y.z + bias.z, y.w + bias.w});
  __syncthreads();
  for (int pair = threadIdx.x; pair < rope.dim / 2; pair += blockDim.x) {
    const Turn turn = turn_of(rope, row, pair);
    const float2 key = turned(turn, normed);
    out[turn.first] = key.x;
    out[turn.second] = key.y;
  }
  for (int c = rope.dim + threadIdx.x; c < n; c += blockDim.x) out[c] = normed[c];
}

// Blocks of kThreads for n values.
unsigned blocks_of(std::size_t n) {
  const std::size_t n_blocks = (n + kThreads - 1) / kThreads;
  CHECK(n > 0 && n_blocks < std::size_t{1} << 31) << n;
  return static_cast<unsigned>(n_blocks);
}

template <int kPieces>
auto rms_norm_kernel(bool aligned) {
  return aligned ? rms_norm<kPieces, true> : rms_norm<kPieces, false>;
}

}  // namespace

void embed_cuda(const DeviceMatrix& table, const int* tokens, int n_tokens, float* out,
                CudaStream stream) {
  const int n = table.n_cols;
  const bool aligned =
      n % kEmbedded == 0 && pieces_are_aligned(table.values, n) && pieces_are_aligned(out, n);
  const unsigned n_parts = blocks_of((static_cast<std::size_t>(n) + kEmbedded - 1) / kEmbedded);
  overlapped(aligned ? embed<true> : embed<false>, dim3(n_tokens, n_parts), kThreads, 0, stream,
             table, tokens, out);
}

void rms_norm_cuda(const float* x, int x_stride, const float* weight, float eps, int n, int n_rows,
                   float* y, int y_stride, CudaStream stream) {
  CHECK(n > 0 && n <= kMaxNormCuda) << n;
  const bool aligned = pieces_are_aligned(x, n, x_stride) && pieces_are_aligned(weight, n) &&
                       pieces_are_aligned(y, n, y_stride);
  // Few enough threads to be quick at a barrier, few enough pieces to stay in registers.
  const int n_pieces = n <= kMaxNormCuda / 8 ? 1 : n <= kMaxNormCuda / 4 ? 2 : 4;
  const auto kernel = n_pieces == 1   ? rms_norm_kernel<1>(aligned)
                      : n_pieces == 2 ? rms_norm_kernel<2>(aligned)
                                      : rms_norm_kernel<4>(aligned);
  overlapped(kernel, dim3(n_rows), threads_of_row(n, n_pieces), 0, stream, x, x_stride, weight, eps,
             n, y, y_stride);
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
  constexpr int kRopeThreads = 256;
  CHECK(rope.dim > 1 && rope.dim <= kMaxRopeCuda) << rope.dim;
  const int half = rope.dim / 2, heads_of_block = std::min(n_heads, kRopeThreads / half);
  overlapped(rope_heads, dim3(n_rows, (n_heads + heads_of_block - 1) / heads_of_block),
             dim3(half, heads_of_block), 0, stream, rope, from, to, n_heads);
}

void append_kv_cuda(const AppendKvCuda& a, const RopeCuda& rope, CudaStream stream) {
  CHECK(rope.dim <= kMaxRopeCuda && a.kv_lora <= kMaxKvLoraCuda) << rope.dim << ", " << a.kv_lora;
  const bool aligned = pieces_are_aligned(a.in, a.kv_lora, a.kv_lora + rope.dim) &&
                       pieces_are_aligned(a.norm_weight, a.kv_lora);
  const int n_turn = (rope.dim / 2 + 31) / 32 * 32;
  overlapped(append_kv, dim3(a.n_rows), threads_of_row(a.kv_lora, 1) + n_turn, 0, stream, a, rope,
             aligned);
}

void append_index_cuda(const AppendIndexCuda& a, const RopeCuda& rope, CudaStream stream) {
  CHECK(rope.dim <= a.dim && a.dim <= kMaxIndexDimCuda) << rope.dim << ", " << a.dim;
  const bool aligned = pieces_are_aligned(a.in, a.dim, a.dim) &&
                       pieces_are_aligned(a.norm_weight, a.dim) &&
                       pieces_are_aligned(a.norm_bias, a.dim);
  overlapped(append_index, dim3(a.n_rows), threads_of_row(a.dim, 1), 0, stream, a, rope, aligned);
}

}  // namespace assay::kernels
