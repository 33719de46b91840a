// Weight types as kernels read them: bfloat16, binary16, binary32.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace assay::kernels {

enum class WeightType { kBf16, kF16, kF32 };

inline float bf16_to_f32(std::uint16_t h) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16);
}

inline float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero: exact
  return sign != 0 ? -magnitude : magnitude;
}

// OCP 8-bit E4M3: bias 7, no infinity, 0x7F and 0xFF are NaN.
inline float e4m3_to_f32(std::uint8_t code) {
  const std::uint32_t sign = (code & 0x80u) << 24, exponent = code >> 3 & 15u, mantissa = code & 7u;
  if ((code & 0x7Fu) == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;  // subnormal or zero: exact
  return sign != 0 ? -magnitude : magnitude;
}

// A row-major matrix in memory that need not be aligned to its element (a mapped file).
struct WeightMatrix {
  const void* data;  // (n_rows, n_cols)
  WeightType type;
  int n_rows, n_cols;
};

inline float weight_at(const WeightMatrix& w, std::int64_t index) {
  const auto* bytes = static_cast<const unsigned char*>(w.data);
  if (w.type == WeightType::kF32) {
    float value;
    std::memcpy(&value, bytes + 4 * index, 4);
    return value;
  }
  std::uint16_t half;
  std::memcpy(&half, bytes + 2 * index, 2);
  return w.type == WeightType::kBf16 ? bf16_to_f32(half) : f16_to_f32(half);
}

}  // namespace assay::kernels
