// Eight neighbouring weights of any matrix, rounded to bfloat16: what tensor cores are fed with. A
// weight is its value in float32 (codeword or integer times scale, so the scale is applied before
// the rounding) rounded to nearest even once: 2^-8 of it at most; bf16 weights stay as they are.
// Plain C++ on both sides, so that a test needs no GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/device_matrix.h"
#include "kernels/gptq_row.cuh"
#include "kernels/split_bf16.cuh"
#include "kernels/unit_weights.cuh"

namespace assay::kernels {

// How eight columns lie in memory. kValues, one weight after the other, takes every matrix; the
// others need columns and scale groups in multiples of eight.
enum class WeightForm {
  kBf16,
  kF16,
  kF32,
  kVq4,
  kVq8,
  kUnits4,
  kUnits8,
  kGptq4,
  kGptq8,
  kFp8,
  kValues
};

__host__ __device__ inline WeightForm form_of(const DeviceMatrix& m) {
  if (m.n_cols % 8 != 0) return WeightForm::kValues;
  switch (m.kind) {
    case DeviceMatrix::Kind::kBf16:
      return WeightForm::kBf16;
    case DeviceMatrix::Kind::kF16:
      return WeightForm::kF16;
    case DeviceMatrix::Kind::kF32:
      return WeightForm::kF32;
    case DeviceMatrix::Kind::kVq:
      if (m.units.bits > 0) return m.dim == 8 ? WeightForm::kUnits8 : WeightForm::kUnits4;
      if (m.n_books != 1 || m.group % 8 != 0) return WeightForm::kValues;
      return m.dim == 8 ? WeightForm::kVq8 : m.dim == 4 ? WeightForm::kVq4 : WeightForm::kValues;
    case DeviceMatrix::Kind::kGptq:
      if (m.group % 8 != 0) return WeightForm::kValues;
      return m.bits == 4 ? WeightForm::kGptq4 : WeightForm::kGptq8;
    case DeviceMatrix::Kind::kFp8:
      return m.group % 8 != 0 ? WeightForm::kValues : WeightForm::kFp8;
  }
  return WeightForm::kValues;
}

// Calls use(std::integral_constant<WeightForm, form>).
template <class Use>
__host__ __device__ inline void with_form(WeightForm form, const Use& use) {
  switch (form) {
    case WeightForm::kBf16:
      return use(std::integral_constant<WeightForm, WeightForm::kBf16>());
    case WeightForm::kF16:
      return use(std::integral_constant<WeightForm, WeightForm::kF16>());
    case WeightForm::kF32:
      return use(std::integral_constant<WeightForm, WeightForm::kF32>());
    case WeightForm::kVq4:
      return use(std::integral_constant<WeightForm, WeightForm::kVq4>());
    case WeightForm::kVq8:
      return use(std::integral_constant<WeightForm, WeightForm::kVq8>());
    case WeightForm::kUnits4:
      return use(std::integral_constant<WeightForm, WeightForm::kUnits4>());
    case WeightForm::kUnits8:
      return use(std::integral_constant<WeightForm, WeightForm::kUnits8>());
    case WeightForm::kGptq4:
      return use(std::integral_constant<WeightForm, WeightForm::kGptq4>());
    case WeightForm::kGptq8:
      return use(std::integral_constant<WeightForm, WeightForm::kGptq8>());
    case WeightForm::kFp8:
      return use(std::integral_constant<WeightForm, WeightForm::kFp8>());
    case WeightForm::kValues:
      return use(std::integral_constant<WeightForm, WeightForm::kValues>());
  }
}

__host__ __device__ inline uint4 bf16_octet(const float (&v)[8]) {
  return {bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]),
          bf16_pair(v[6], v[7])};
}

// Two binary16 values of a word, or an E4M3 pair of its low half.
__host__ __device__ inline float2 f16_pair(unsigned word) {
  __half2 pair;
  memcpy(&pair, &word, sizeof pair);
  return __half22float2(pair);
}
__host__ __device__ inline float2 e4m3_pair(unsigned word) {
  return __half22float2(
      __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(word), __NV_E4M3)));
}
__host__ __device__ inline float f16_value(unsigned bits) { return f16_pair(bits).x; }

// An integer below 2^23 less `zero` = 2^23 + z + 1: integers are the low bits of a float of
// exponent 23.
__host__ __device__ inline float less_zero(unsigned integer, float zero) {
  return std::bit_cast<float>(0x4B000000u | integer) - zero;
}

// One weight of any matrix, in float32.
__host__ __device__ inline float weight_value(const DeviceMatrix& m, int row, int col) {
  const long long i = static_cast<long long>(row) * m.n_cols + col;
  const int group = m.group > 0 ? col / m.group : 0;
  switch (m.kind) {
    case DeviceMatrix::Kind::kBf16:
      return std::bit_cast<float>(
          static_cast<unsigned>(static_cast<const unsigned short*>(m.values)[i]) << 16);
    case DeviceMatrix::Kind::kF16:
      return f16_value(static_cast<const unsigned short*>(m.values)[i]);
    case DeviceMatrix::Kind::kF32:
      return static_cast<const float*>(m.values)[i];
    case DeviceMatrix::Kind::kVq: {
      if (m.units.bits > 0) return unit_value(m, row, col);
      const unsigned* words =
          static_cast<const unsigned*>(m.values) + static_cast<long long>(row) * m.row_words;
      float sum = 0;
      for (int b = 0; b < m.n_books; ++b) {
        const int bit = (col / m.dim * m.n_books + b) * m.index_bits, word = bit / 32;
        std::uint64_t both = words[word];
        if (bit % 32 + m.index_bits > 32) both |= static_cast<std::uint64_t>(words[word + 1]) << 32;
        const auto index = static_cast<unsigned>(both >> (bit % 32)) & ((1u << m.index_bits) - 1);
        sum += m.codebook[(static_cast<long long>(b) * m.n_codes + index) * m.dim + col % m.dim];
      }
      return sum * f16_value(static_cast<const unsigned short*>(
                       m.scales)[static_cast<long long>(row) * m.n_groups + group]);
    }
    case DeviceMatrix::Kind::kGptq: {
      const int per_word = 32 / m.bits;
      const GptqRow codes(m, row);
      const float2 scale = codes.scale(group);
      const unsigned integer =
          codes.word(col / per_word) >> (m.bits * (col % per_word)) & ((1u << m.bits) - 1);
      return less_zero(integer, scale.y) * scale.x;
    }
    case DeviceMatrix::Kind::kFp8:
      return e4m3_pair(static_cast<const unsigned char*>(m.values)[i]).x *
             static_cast<const float*>(
                 m.scales)[static_cast<long long>(row / m.group) * m.n_groups + group];
  }
  return 0;
}

// What is read of eight columns before they are needed: their codes. Scales, which serve several
// times eight, and dense weights are read when they are decoded.
// Of columns [col, col + 8); col is a multiple of 8 below n_cols.
template <WeightForm kForm>
__host__ __device__ inline uint2 fetch_codes(const DeviceMatrix& m, int row, int col) {
  uint2 codes = {0, 0};
  const long long r = row;
  if constexpr (kForm == WeightForm::kVq4 || kForm == WeightForm::kVq8) {
    constexpr int kDim = kForm == WeightForm::kVq4 ? 4 : 8;
    const unsigned* words = static_cast<const unsigned*>(m.values) + r * m.row_words;
    const int bit = col / kDim * m.index_bits, word = bit / 32;
    codes.x = words[word];
    // Past the row's end there may be no memory.
    if (bit % 32 + 8 / kDim * m.index_bits > 32) codes.y = words[word + 1];
  } else if constexpr (kForm == WeightForm::kUnits4 || kForm == WeightForm::kUnits8) {
    constexpr int kCodes = kForm == WeightForm::kUnits4 ? 2 : 1;
    const std::uint64_t fields = unit_at(m, row, col).fields(kCodes * m.units.bits);
    codes = {static_cast<unsigned>(fields), static_cast<unsigned>(fields >> 32)};
  } else if constexpr (kForm == WeightForm::kGptq4 || kForm == WeightForm::kGptq8) {
    const GptqRow words(m, row);
    if constexpr (kForm == WeightForm::kGptq4)
      codes.x = words.word(col / 8);
    else
      codes = words.pair(col / 4);
  } else if constexpr (kForm == WeightForm::kFp8) {
    codes = *reinterpret_cast<const uint2*>(static_cast<const unsigned char*>(m.values) +
                                            r * m.n_cols + col);
  }
  return codes;
}

// Eight halves times their scale.
__host__ __device__ inline uint4 scaled_octet(uint4 h, float scale) {
  const float2 a = f16_pair(h.x), b = f16_pair(h.y), d = f16_pair(h.z), e = f16_pair(h.w);
  return {bf16_pair(a.x * scale, a.y * scale), bf16_pair(b.x * scale, b.y * scale),
          bf16_pair(d.x * scale, d.y * scale), bf16_pair(e.x * scale, e.y * scale)};
}

template <WeightForm kForm>
__host__ __device__ inline uint4 decode_codes(const DeviceMatrix& m, int row, int col,
                                              uint2 codes) {
  const long long r = row, first = r * m.n_cols + col;
  float v[8];
  if constexpr (kForm == WeightForm::kBf16) {
    return *reinterpret_cast<const uint4*>(static_cast<const unsigned short*>(m.values) + first);
  } else if constexpr (kForm == WeightForm::kF16) {
    const uint4 h =
        *reinterpret_cast<const uint4*>(static_cast<const unsigned short*>(m.values) + first);
    const float2 a = f16_pair(h.x), b = f16_pair(h.y), d = f16_pair(h.z), e = f16_pair(h.w);
    return {bf16_pair(a.x, a.y), bf16_pair(b.x, b.y), bf16_pair(d.x, d.y), bf16_pair(e.x, e.y)};
  } else if constexpr (kForm == WeightForm::kF32) {
    const float4* f = reinterpret_cast<const float4*>(static_cast<const float*>(m.values) + first);
    const float4 a = f[0], b = f[1];
    return {bf16_pair(a.x, a.y), bf16_pair(a.z, a.w), bf16_pair(b.x, b.y), bf16_pair(b.z, b.w)};
  } else if constexpr (kForm == WeightForm::kVq4 || kForm == WeightForm::kVq8) {
    constexpr int kDim = kForm == WeightForm::kVq4 ? 4 : 8;
    const unsigned mask = (1u << m.index_bits) - 1;
    const std::uint64_t both =
        (static_cast<std::uint64_t>(codes.y) << 32 | codes.x) >> (col / kDim * m.index_bits % 32);
    const auto index = static_cast<unsigned>(both) & mask;
    uint4 h;
    if constexpr (kForm == WeightForm::kVq8) {
      h = static_cast<const uint4*>(m.codebook_f16)[index];
    } else {
      const uint2* book = static_cast<const uint2*>(m.codebook_f16);
      const uint2 low = book[index],
                  high = book[static_cast<unsigned>(both >> m.index_bits) & mask];
      h = {low.x, low.y, high.x, high.y};
    }
    return scaled_octet(
        h, f16_value(static_cast<const unsigned short*>(m.scales)[r * m.n_groups + col / m.group]));
  } else if constexpr (kForm == WeightForm::kUnits4 || kForm == WeightForm::kUnits8) {
    const std::uint64_t both = static_cast<std::uint64_t>(codes.y) << 32 | codes.x;
    const int code = unit_code(m, both);
    const float scale = unit_at(m, row, col).scale;
    if constexpr (kForm == WeightForm::kUnits8) {
      return scaled_octet(static_cast<const uint4*>(m.codebook_f16)[code], scale);
    } else {
      const uint2* book = static_cast<const uint2*>(m.codebook_f16);
      const uint2 low = book[code], high = book[unit_code(m, both >> m.units.bits)];
      return scaled_octet({low.x, low.y, high.x, high.y}, scale);
    }
  } else if constexpr (kForm == WeightForm::kGptq4 || kForm == WeightForm::kGptq8) {
    constexpr int kBits = kForm == WeightForm::kGptq4 ? 4 : 8, kPerWord = 32 / kBits;
    const float2 scale = GptqRow(m, row).scale(col / m.group);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const unsigned word = i < kPerWord ? codes.x : codes.y;
      v[i] = less_zero(word >> (kBits * (i % kPerWord)) & ((1u << kBits) - 1), scale.y) * scale.x;
    }
  } else if constexpr (kForm == WeightForm::kFp8) {
    const float scale =
        static_cast<const float*>(m.scales)[r / m.group * m.n_groups + col / m.group];
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const unsigned word = i < 4 ? codes.x : codes.y;
      const float2 pair = e4m3_pair(word >> (8 * (i % 4)) & 0xFFFFu);
      v[i] = pair.x * scale;
      v[i + 1] = pair.y * scale;
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < 8; ++i) v[i] = col + i < m.n_cols ? weight_value(m, row, col + i) : 0;
  }
  return bf16_octet(v);
}

}  // namespace assay::kernels
