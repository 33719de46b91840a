// One row of any weight matrix times one vector, by one warp: every lane returns the same sum. A
// lane's chain and the tree over lanes depend on the matrix alone, so the same request gives the
// same bits whatever shares its batch.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/device_matrix.h"

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

__device__ inline float dense_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  float sum = 0;
  const long long first = static_cast<long long>(row) * m.n_cols;
  if (m.kind == DeviceMatrix::Kind::kBf16 && m.n_cols % 8 == 0) {
    // 16-byte pieces 32 apart: a warp reads 512 consecutive bytes.
    const uint4* w =
        reinterpret_cast<const uint4*>(static_cast<const unsigned short*>(m.values) + first);
    const float4* x4 = reinterpret_cast<const float4*>(x);
    for (int i = lane; i < m.n_cols / 8; i += 32) {
      const uint4 piece = w[i];
      const float4 a = x4[2 * i], b = x4[2 * i + 1];
      sum = fmaf(bf16_low(piece.x), a.x, sum);
      sum = fmaf(bf16_high(piece.x), a.y, sum);
      sum = fmaf(bf16_low(piece.y), a.z, sum);
      sum = fmaf(bf16_high(piece.y), a.w, sum);
      sum = fmaf(bf16_low(piece.z), b.x, sum);
      sum = fmaf(bf16_high(piece.z), b.y, sum);
      sum = fmaf(bf16_low(piece.w), b.z, sum);
      sum = fmaf(bf16_high(piece.w), b.w, sum);
    }
    return sum;
  }
  for (int c = lane; c < m.n_cols; c += 32) sum = fmaf(dense_value(m, first + c), x[c], sum);
  return sum;
}

// A lane takes sub-vectors 32 apart.
__device__ inline float vq_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  const unsigned* words =
      static_cast<const unsigned*>(m.values) + static_cast<long long>(row) * m.row_words;
  const __half* scales =
      static_cast<const __half*>(m.scales) + static_cast<long long>(row) * m.n_groups;
  const unsigned mask = (1u << m.index_bits) - 1;
  float sum = 0;
  for (int j = lane; j < m.n_cols / m.dim; j += 32) {
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

__device__ inline float gptq_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  const unsigned* words =
      static_cast<const unsigned*>(m.values) + static_cast<long long>(row) * m.row_words;
  const float* scales =
      static_cast<const float*>(m.scales) + static_cast<long long>(row) * m.n_groups;
  const float* zeros = m.zeros + static_cast<long long>(row) * m.n_groups;
  const int per_word = 32 / m.bits;
  const unsigned mask = (1u << m.bits) - 1;
  float sum = 0;
  for (int i = lane; i < m.row_words; i += 32) {
    const unsigned word = words[i];
    for (int k = 0; k < per_word; ++k) {
      const int c = i * per_word + k;
      if (c >= m.n_cols) break;
      const int g = c / m.group;
      const float q = static_cast<float>(word >> (m.bits * k) & mask);
      sum = fmaf((q - zeros[g]) * scales[g], x[c], sum);
    }
  }
  return sum;
}

__device__ inline float fp8_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  const __nv_fp8_storage_t* values =
      static_cast<const __nv_fp8_storage_t*>(m.values) + static_cast<long long>(row) * m.n_cols;
  const float* scales =
      static_cast<const float*>(m.scales) + static_cast<long long>(row / m.group) * m.n_groups;
  float sum = 0;
  for (int c = lane; c < m.n_cols; c += 32) {
    const float v = __half2float(__half(__nv_cvt_fp8_to_halfraw(values[c], __NV_E4M3)));
    sum = fmaf(v * scales[c / m.group], x[c], sum);
  }
  return sum;
}

// x has m.n_cols values, 16-byte aligned where m is bf16.
__device__ inline float row_dot(const DeviceMatrix& m, int row, const float* x, int lane) {
  float sum = 0;
  switch (m.kind) {
    case DeviceMatrix::Kind::kBf16:
    case DeviceMatrix::Kind::kF16:
    case DeviceMatrix::Kind::kF32:
      sum = dense_dot(m, row, x, lane);
      break;
    case DeviceMatrix::Kind::kVq:
      sum = vq_dot(m, row, x, lane);
      break;
    case DeviceMatrix::Kind::kGptq:
      sum = gptq_dot(m, row, x, lane);
      break;
    case DeviceMatrix::Kind::kFp8:
      sum = fp8_dot(m, row, x, lane);
      break;
  }
  return warp_sum(sum);
}

}  // namespace assay::kernels
