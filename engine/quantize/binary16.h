// Rounding to binary16, the type of scales and codebooks on disk (kernels/dtype.h reads it back).
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/dtype.h"

namespace assay::engine {

// To nearest, ties to even, as IEEE 754 and PyTorch round; beyond 65504 the largest finite value,
// because an infinite scale would ruin a whole group. NaN stays NaN.
inline std::uint16_t f32_to_f16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return sign | 0x7E00u;
  if (magnitude >= 0x477FF000u) return sign | 0x7BFFu;  // 65520, half way to the next power
  std::uint32_t rounded;
  if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24; adding 0.5 leaves it in the
                                  // low bits, rounded by the addition itself
    rounded = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    rounded = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | rounded);
}

inline float round_to_f16(float x) { return kernels::f16_to_f32(f32_to_f16(x)); }

}  // namespace assay::engine
