// One row of any weight matrix times one vector, by the lanes of one or several warps. A lane's
// chain and the tree over lanes depend on the matrix alone, so the same request gives the same bits
// whatever shares its batch.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

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

// Which lane of how many that share the row.
struct RowLane {
  int lane, n_lanes;
};

// The elements i = lane, lane + n_lanes … of n of a row, in that order, with kAhead of them on
// their way: sum = use(fetch(i), i, sum). Elements are as wide as keeps the lanes' x side by side.
template <class Element, int kAhead, class Fetch, class Use>
__device__ inline float over_elements(int n, RowLane l, const Fetch& fetch, const Use& use) {
  float sum = 0;
  for (int i = l.lane; i < n; i += kAhead * l.n_lanes) {
    Element e[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (i + u * l.n_lanes < n) e[u] = fetch(i + u * l.n_lanes);
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (i + u * l.n_lanes < n) sum = use(e[u], i + u * l.n_lanes, sum);
  }
  return sum;
}
template <class Element, int kAhead, class Use>
__device__ inline float over_row(const void* row, int n, RowLane l, const Use& use) {
  const Element* elements = static_cast<const Element*>(row);
  return over_elements<Element, kAhead>(
      n, l, [&](int i) { return __ldg(elements + i); }, use);
}

__device__ inline float fma4(float4 w, float4 x, float sum) {
  sum = fmaf(w.x, x.x, sum);
  sum = fmaf(w.y, x.y, sum);
  sum = fmaf(w.z, x.z, sum);
  return fmaf(w.w, x.w, sum);
}

__device__ inline float dense_dot(const DeviceMatrix& m, int row, const float* x, RowLane l) {
  const long long first = static_cast<long long>(row) * m.n_cols;
  if (m.kind == DeviceMatrix::Kind::kBf16 && m.n_cols % 8 == 0) {
    const float4* x4 = reinterpret_cast<const float4*>(x);
    return over_row<uint4, 4>(
        static_cast<const unsigned short*>(m.values) + first, m.n_cols / 8, l,
        [&](uint4 p, int i, float sum) {
          sum =
              fma4({bf16_low(p.x), bf16_high(p.x), bf16_low(p.y), bf16_high(p.y)}, x4[2 * i], sum);
          return fma4({bf16_low(p.z), bf16_high(p.z), bf16_low(p.w), bf16_high(p.w)}, x4[2 * i + 1],
                      sum);
        });
  }
  if (m.kind == DeviceMatrix::Kind::kF32 && m.n_cols % 4 == 0) {
    const float4* x4 = reinterpret_cast<const float4*>(x);
    return over_row<float4, 8>(static_cast<const float*>(m.values) + first, m.n_cols / 4, l,
                               [&](float4 w, int i, float sum) { return fma4(w, x4[i], sum); });
  }
  if (m.kind == DeviceMatrix::Kind::kF16 && m.n_cols % 8 == 0) {
    const float4* x4 = reinterpret_cast<const float4*>(x);
    return over_row<uint4, 4>(static_cast<const __half*>(m.values) + first, m.n_cols / 8, l,
                              [&](uint4 p, int i, float sum) {
                                const float2 a = f16_pair(p.x), b = f16_pair(p.y),
                                             c = f16_pair(p.z), d = f16_pair(p.w);
                                sum = fma4({a.x, a.y, b.x, b.y}, x4[2 * i], sum);
                                return fma4({c.x, c.y, d.x, d.y}, x4[2 * i + 1], sum);
                              });
  }
  float sum = 0;
  for (int c = l.lane; c < m.n_cols; c += l.n_lanes)
    sum = fmaf(dense_value(m, first + c), x[c], sum);
  return sum;
}

// In units, which moe_cuda's own kernel multiplies, a weight at a time: right, not fast.
__device__ inline float vq_dot(const DeviceMatrix& m, int row, const float* x, RowLane l) {
  if (m.units.bits > 0) {
    float sum = 0;
    for (int c = l.lane; c < m.n_cols; c += l.n_lanes) sum = fmaf(unit_value(m, row, c), x[c], sum);
    return sum;
  }
  const unsigned* words =
      static_cast<const unsigned*>(m.values) + static_cast<long long>(row) * m.row_words;
  const __half* scales =
      static_cast<const __half*>(m.scales) + static_cast<long long>(row) * m.n_groups;
  const unsigned mask = (1u << m.index_bits) - 1;
  float sum = 0;
  for (int j = l.lane; j < m.n_cols / m.dim; j += l.n_lanes) {
    float part = 0;
    for (int b = 0; b < m.n_books; ++b) {
      const int bit = (j * m.n_books + b) * m.index_bits, word = bit / 32;
      unsigned long long both = words[word];
      if (bit % 32 + m.index_bits > 32)
        both |= static_cast<unsigned long long>(words[word + 1]) << 32;
      const unsigned index = static_cast<unsigned>(both >> (bit % 32)) & mask;
      const float* codeword = m.codebook + (static_cast<long long>(b) * m.n_codes + index) * m.dim;
      for (int i = 0; i < m.dim; ++i) part = fmaf(codeword[i], x[j * m.dim + i], part);
    }
    sum = fmaf(__half2float(scales[j * m.dim / m.group]), part, sum);
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

template <int kBits>
__device__ inline float gptq_dot(const DeviceMatrix& m, int row, const float* x, RowLane l) {
  const GptqRow codes(m, row);
  constexpr int kPerWord = 32 / kBits;
  const int words_of_group = m.group / kPerWord;
  if (m.n_cols % kPerWord == 0 && m.group % kPerWord == 0 && __popc(words_of_group) == 1) {
    const int shift = __ffs(words_of_group) - 1;
    const float4* x4 = reinterpret_cast<const float4*>(x);
    const auto fetch = [&](int i) { return codes.word(i); };
    return over_elements<unsigned, 8>(m.row_words, l, fetch, [&](unsigned word, int i, float sum) {
      const float2 scale = codes.scale(i >> shift);
      float part = 0;
#pragma unroll
      for (int k = 0; k < kPerWord; k += 4)
        part =
            fma4({gptq_value<kBits>(word, k, scale.y), gptq_value<kBits>(word, k + 1, scale.y),
                  gptq_value<kBits>(word, k + 2, scale.y), gptq_value<kBits>(word, k + 3, scale.y)},
                 x4[(i * kPerWord + k) / 4], part);
      return fmaf(scale.x, part, sum);
    });
  }
  float sum = 0;
  for (int i = l.lane; i < m.row_words; i += l.n_lanes) {
    const unsigned word = codes.word(i);
    for (int k = 0; k < kPerWord; ++k) {
      const int c = i * kPerWord + k;
      if (c >= m.n_cols) break;
      const float2 scale = codes.scale(c / m.group);
      sum = fmaf(gptq_value<kBits>(word, k, scale.y) * scale.x, x[c], sum);
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

__device__ inline float fp8_dot(const DeviceMatrix& m, int row, const float* x, RowLane l) {
  const __nv_fp8_storage_t* values =
      static_cast<const __nv_fp8_storage_t*>(m.values) + static_cast<long long>(row) * m.n_cols;
  const float* scales =
      static_cast<const float*>(m.scales) + static_cast<long long>(row / m.group) * m.n_groups;
  const float4* x4 = reinterpret_cast<const float4*>(x);
  if (m.n_cols % 4 == 0 && m.group % 4 == 0 && __popc(m.group) == 1) {
    const int shift = __ffs(m.group / 4) - 1;
    return over_row<unsigned, 8>(values, m.n_cols / 4, l, [&](unsigned word, int i, float sum) {
      return fmaf(__ldg(scales + (i >> shift)), fma4(fp8_values(word), x4[i], 0), sum);
    });
  }
  float sum = 0;
  for (int c = l.lane; c < m.n_cols; c += l.n_lanes) {
    const float v = __half2float(__half(__nv_cvt_fp8_to_halfraw(values[c], __NV_E4M3)));
    sum = fmaf(v * scales[c / m.group], x[c], sum);
  }
  return sum;
}

// This lane's part. x has m.n_cols values, 16-byte aligned.
__device__ inline float row_part(const DeviceMatrix& m, int row, const float* x, RowLane l) {
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
