// One row of any weight matrix times one vector or several, by the lanes of one or several warps. A
// lane's chain and the tree over lanes depend on the matrix alone, so the same request gives the
// same bits whatever shares its batch.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <bit>

#include "kernels/bf16_weights.cuh"
#include "kernels/device_matrix.h"
#include "kernels/gptq_row.cuh"
#include "kernels/unit_weights.cuh"

namespace assay::kernels {

__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  return value;
}

__device__ inline float bf16_low(unsigned word) { return __uint_as_float(word << 16); }
__device__ inline float bf16_high(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }

__device__ inline float dense_value(const DeviceMatrix& m, long long i) {
  if (m.kind == DeviceMatrix::Kind::kF32) return static_cast<const float*>(m.values)[i];
  if (m.kind == DeviceMatrix::Kind::kF16)
    return __half2float(static_cast<const __half*>(m.values)[i]);
  return bf16_low(static_cast<const unsigned short*>(m.values)[i]);
}

__device__ inline float4 bf16_quad(unsigned low, unsigned high) {
  return {bf16_low(low), bf16_high(low), bf16_low(high), bf16_high(high)};
}
__device__ inline float4 f16_quad(unsigned low, unsigned high) {
  const float2 a = f16_pair(low), b = f16_pair(high);
  return {a.x, a.y, b.x, b.y};
}

__device__ inline float fma4(float4 w, float4 x, float sum) {
  sum = fmaf(w.x, x.x, sum);
  sum = fmaf(w.y, x.y, sum);
  sum = fmaf(w.z, x.z, sum);
  return fmaf(w.w, x.w, sum);
}

__host__ __device__ inline bool is_power_of_two(int n) {
#ifdef __CUDA_ARCH__
  return __popc(n) == 1;
#else
  return std::has_single_bit(static_cast<unsigned>(n));
#endif
}
// Of a quantised matrix: whether rows and scales' groups are whole pieces of `width` columns, of
// which a group has a power of two.
__host__ __device__ inline bool has_whole_pieces(const DeviceMatrix& m, int width) {
  return m.n_cols % width == 0 && m.group % width == 0 && is_power_of_two(m.group / width);
}
__device__ inline int log2_of(int power) { return __ffs(power) - 1; }

// Which lane of how many that share the row.
struct RowLane {
  int lane, n_lanes;
};

// Rows of x that are multiplied together, below 4 GB; where there are fewer, the last one's again.
// 16-byte aligned.
template <int kTokens>
struct TokenInputs {
  const float* x;
  unsigned at[kTokens];  // bytes: one register, or none, where an address takes two
  __device__ TokenInputs(const float* first, int stride, int n_tokens) : x(first) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      at[t] = min(t, n_tokens - 1) * stride * 4u;
      if constexpr (kTokens <= 4) asm volatile("" : "+r"(at[t]));  // not made again at each use
    }
  }
  __device__ const float* operator[](int t) const { return from<float>(at[t]); }
  // Values 4 i and following.
  __device__ float4 quad(int t, int i) const { return *from<float4>(at[t] + 16u * i); }

 private:
  template <class T>
  __device__ const T* from(unsigned offset) const {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(x) + offset);
  }
};
template <>
struct TokenInputs<1> {
  const float* x;
  __device__ TokenInputs(const float* first, int = 0, int = 1) : x(first) {}
  __device__ const float* operator[](int) const { return x; }
  __device__ float4 quad(int, int i) const { return reinterpret_cast<const float4*>(x)[i]; }
};

// A row's, of each token: what is decoded serves all of them, and each has the chain that it has
// alone.
template <int kTokens>
struct TokenSums {
  float of[kTokens];

  __device__ void add(float w, const TokenInputs<kTokens>& x, int col) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) of[t] = fmaf(w, x[t][col], of[t]);
  }
  __device__ void add(float scale, const TokenSums& part) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) of[t] = fmaf(scale, part.of[t], of[t]);
  }
  __device__ void add4(float4 w, const TokenInputs<kTokens>& x, int quad) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) of[t] = fma4(w, x.quad(t, quad), of[t]);
  }
};

// The elements i = lane, lane + n_lanes … of n of a row, in that order, with kAhead of them on
// their way: use(fetch(i), i, sum). Elements are as wide as keeps the lanes' x side by side.
template <class Element, int kAhead, int kTokens, class Fetch, class Use>
__device__ inline TokenSums<kTokens> over_elements(int n, RowLane l, const Fetch& fetch,
                                                   const Use& use) {
  TokenSums<kTokens> sum{};
  for (int i = l.lane; i < n; i += kAhead * l.n_lanes) {
    Element e[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (i + u * l.n_lanes < n) e[u] = fetch(i + u * l.n_lanes);
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (i + u * l.n_lanes < n) use(e[u], i + u * l.n_lanes, sum);
  }
  return sum;
}
template <class Element, int kAhead, int kTokens, class Use>
__device__ inline TokenSums<kTokens> over_row(const void* row, int n, RowLane l, const Use& use) {
  const Element* elements = static_cast<const Element*>(row);
  return over_elements<Element, kAhead, kTokens>(
      n, l, [&](int i) { return __ldg(elements + i); }, use);
}

template <int kTokens>
__device__ inline TokenSums<kTokens> dense_dot(const DeviceMatrix& m, int row,
                                               const TokenInputs<kTokens>& x, RowLane l) {
  const long long first = static_cast<long long>(row) * m.n_cols;
  using Sums = TokenSums<kTokens>;
  if (m.kind == DeviceMatrix::Kind::kBf16 && m.n_cols % 8 == 0)
    return over_row<uint4, 4, kTokens>(static_cast<const unsigned short*>(m.values) + first,
                                       m.n_cols / 8, l, [&](uint4 p, int i, Sums& sum) {
                                         sum.add4(bf16_quad(p.x, p.y), x, 2 * i);
                                         sum.add4(bf16_quad(p.z, p.w), x, 2 * i + 1);
                                       });
  if (m.kind == DeviceMatrix::Kind::kF32 && m.n_cols % 4 == 0)
    return over_row<float4, 8, kTokens>(static_cast<const float*>(m.values) + first, m.n_cols / 4,
                                        l, [&](float4 w, int i, Sums& sum) { sum.add4(w, x, i); });
  if (m.kind == DeviceMatrix::Kind::kF16 && m.n_cols % 8 == 0)
    return over_row<uint4, 4, kTokens>(static_cast<const __half*>(m.values) + first, m.n_cols / 8,
                                       l, [&](uint4 p, int i, Sums& sum) {
                                         sum.add4(f16_quad(p.x, p.y), x, 2 * i);
                                         sum.add4(f16_quad(p.z, p.w), x, 2 * i + 1);
                                       });
  Sums sum{};
  for (int c = l.lane; c < m.n_cols; c += l.n_lanes) sum.add(dense_value(m, first + c), x, c);
  return sum;
}

// In units, which moe_cuda's own kernel multiplies, a weight at a time: right, not fast.
template <int kTokens>
__device__ inline TokenSums<kTokens> vq_dot(const DeviceMatrix& m, int row,
                                            const TokenInputs<kTokens>& x, RowLane l) {
  TokenSums<kTokens> sum{};
  if (m.units.bits > 0) {
    for (int c = l.lane; c < m.n_cols; c += l.n_lanes) sum.add(unit_value(m, row, c), x, c);
    return sum;
  }
  const unsigned* words =
      static_cast<const unsigned*>(m.values) + static_cast<long long>(row) * m.row_words;
  const __half* scales =
      static_cast<const __half*>(m.scales) + static_cast<long long>(row) * m.n_groups;
  const unsigned mask = (1u << m.index_bits) - 1;
  for (int j = l.lane; j < m.n_cols / m.dim; j += l.n_lanes) {
    TokenSums<kTokens> part{};
    for (int b = 0; b < m.n_books; ++b) {
      const int bit = (j * m.n_books + b) * m.index_bits, word = bit / 32;
      unsigned long long both = words[word];
      if (bit % 32 + m.index_bits > 32)
        both |= static_cast<unsigned long long>(words[word + 1]) << 32;
      const unsigned index = static_cast<unsigned>(both >> (bit % 32)) & mask;
      const float* codeword = m.codebook + (static_cast<long long>(b) * m.n_codes + index) * m.dim;
      for (int i = 0; i < m.dim; ++i) part.add(codeword[i], x, j * m.dim + i);
    }
    sum.add(__half2float(scales[j * m.dim / m.group]), part);
  }
  return sum;
}

// Value k of a word; zero is 2^23 + z + 1: integers below 2^23 are the low bits of a float of
// exponent 23.
template <int kBits>
__device__ inline float gptq_value(unsigned word, int k, float zero) {
  const unsigned bits = kBits == 8 ? __byte_perm(word, 0x4B000000u, 0x7540 + k)
                                   : 0x4B000000u | (word >> (kBits * k) & ((1u << kBits) - 1));
  return __uint_as_float(bits) - zero;
}
// Values k to k + 3.
template <int kBits>
__device__ inline float4 gptq_quad(unsigned word, int k, float zero) {
  return {gptq_value<kBits>(word, k, zero), gptq_value<kBits>(word, k + 1, zero),
          gptq_value<kBits>(word, k + 2, zero), gptq_value<kBits>(word, k + 3, zero)};
}

template <int kBits, int kTokens>
__device__ inline TokenSums<kTokens> gptq_dot(const DeviceMatrix& m, int row,
                                              const TokenInputs<kTokens>& x, RowLane l) {
  const GptqRow codes(m, row);
  using Sums = TokenSums<kTokens>;
  constexpr int kPerWord = 32 / kBits;
  if (has_whole_pieces(m, kPerWord)) {
    const int shift = log2_of(m.group / kPerWord);
    const auto fetch = [&](int i) { return codes.word(i); };
    return over_elements<unsigned, 8, kTokens>(
        m.row_words, l, fetch, [&](unsigned word, int i, Sums& sum) {
          const float2 scale = codes.scale(i >> shift);
          Sums part{};
#pragma unroll
          for (int k = 0; k < kPerWord; k += 4)
            part.add4(gptq_quad<kBits>(word, k, scale.y), x, (i * kPerWord + k) / 4);
          sum.add(scale.x, part);
        });
  }
  Sums sum{};
  for (int i = l.lane; i < m.row_words; i += l.n_lanes) {
    const unsigned word = codes.word(i);
    for (int k = 0; k < kPerWord; ++k) {
      const int c = i * kPerWord + k;
      if (c >= m.n_cols) break;
      const float2 scale = codes.scale(c / m.group);
      sum.add(gptq_value<kBits>(word, k, scale.y) * scale.x, x, c);
    }
  }
  return sum;
}

__device__ inline float4 fp8_values(unsigned word) {
  const float2 low = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(
                   static_cast<__nv_fp8x2_storage_t>(word & 0xFFFFu), __NV_E4M3))),
               high = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(
                   static_cast<__nv_fp8x2_storage_t>(word >> 16), __NV_E4M3)));
  return {low.x, low.y, high.x, high.y};
}

template <int kTokens>
__device__ inline TokenSums<kTokens> fp8_dot(const DeviceMatrix& m, int row,
                                             const TokenInputs<kTokens>& x, RowLane l) {
  const __nv_fp8_storage_t* values =
      static_cast<const __nv_fp8_storage_t*>(m.values) + static_cast<long long>(row) * m.n_cols;
  const float* scales =
      static_cast<const float*>(m.scales) + static_cast<long long>(row / m.group) * m.n_groups;
  using Sums = TokenSums<kTokens>;
  if (has_whole_pieces(m, 4)) {
    const int shift = log2_of(m.group / 4);
    return over_row<unsigned, 8, kTokens>(values, m.n_cols / 4, l,
                                          [&](unsigned word, int i, Sums& sum) {
                                            const float scale = __ldg(scales + (i >> shift));
                                            Sums part{};
                                            part.add4(fp8_values(word), x, i);
                                            sum.add(scale, part);
                                          });
  }
  Sums sum{};
  for (int c = l.lane; c < m.n_cols; c += l.n_lanes) {
    const float v = __half2float(__half(__nv_cvt_fp8_to_halfraw(values[c], __NV_E4M3)));
    sum.add(v * scales[c / m.group], x, c);
  }
  return sum;
}

// This lane's part of the row's products. x has m.n_cols values.
template <int kTokens>
__device__ inline TokenSums<kTokens> row_parts(const DeviceMatrix& m, int row,
                                               const TokenInputs<kTokens>& x, RowLane l) {
  switch (m.kind) {
    case DeviceMatrix::Kind::kVq:
      return vq_dot(m, row, x, l);
    case DeviceMatrix::Kind::kGptq:
      return m.bits == 8 ? gptq_dot<8>(m, row, x, l) : gptq_dot<4>(m, row, x, l);
    case DeviceMatrix::Kind::kFp8:
      return fp8_dot(m, row, x, l);
    case DeviceMatrix::Kind::kBf16:
    case DeviceMatrix::Kind::kF16:
    case DeviceMatrix::Kind::kF32:
      break;
  }
  return dense_dot(m, row, x, l);
}
__device__ inline float row_part(const DeviceMatrix& m, int row, const float* x, RowLane l) {
  return row_parts(m, row, TokenInputs<1>{x}, l).of[0];
}

// By one warp: every lane returns the same sum.
__device__ inline float row_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  return warp_sum(row_part(m, row, x, {lane, 32}));
}

// Blocks of kRowWarps warps, each with a row: dim3(32, kRowWarps) threads, and a grid of rows by
// tokens.
constexpr int kRowWarps = 4;
inline dim3 row_grid(int n_rows, int n_tokens) {
  return dim3((n_rows + kRowWarps - 1) / kRowWarps, n_tokens);
}
__device__ inline int warp_row() { return blockIdx.x * kRowWarps + threadIdx.y; }

__device__ inline float silu(float v) { return v / (1.0f + expf(-v)); }

}  // namespace assay::kernels
