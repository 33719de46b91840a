// Weights of a VQ matrix in units (vq_units.h), by row and column: for whoever reads such a matrix
// otherwise than the routed experts' kernel. Plain C++ on both sides.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "kernels/device_matrix.h"
#include "kernels/vq_sums.h"

namespace assay::kernels {

__host__ __device__ inline float unit_half(unsigned short bits) {
  __half h;
  memcpy(&h, &bits, sizeof h);
  return __half2float(h);
}

// Of a matrix in units: what holds a weight, the two words of which `bit` is the first bit of its
// field, and its scale.
struct UnitAt {
  const unsigned* words;
  int bit;
  float scale;
  // The next word of the stream, if there is one.
  __host__ __device__ std::uint64_t fields(int n_bits) const {
    const std::uint64_t next = bit % 32 + n_bits > 32 ? words[32] : 0;
    return (next << 32 | words[0]) >> (bit % 32);
  }
};
__host__ __device__ inline UnitAt sums_unit_at(const DeviceMatrix& m, int row, int col) {
  const unsigned char* unit = static_cast<const unsigned char*>(m.values) +
                              sums_index(row, col, m.n_rows, m.dim) * sums_unit_bytes(m.dim);
  const int at = sums_code_at(row, col / m.dim % kSumsCodes),
            scale = sums_scale_at(m.dim, row, col);
  return {reinterpret_cast<const unsigned*>(unit + at / 4 * 4), at % 4 * 8,
          unit_half(*reinterpret_cast<const unsigned short*>(unit + scale))};
}
__host__ __device__ inline UnitAt unit_at(const DeviceMatrix& m, int row, int col) {
  if (m.units.for_sums()) return sums_unit_at(m, row, col);
  const unsigned char* unit = static_cast<const unsigned char*>(m.values) +
                              unit_index(m.units, row, col, m.n_rows, m.n_cols) * m.units.bytes();
  const int bit = unit_field(m.dim, col) * m.units.bits;
  const auto* scales = reinterpret_cast<const unsigned short*>(unit + m.units.scales_at());
  return {reinterpret_cast<const unsigned*>(unit) + bit / 32 * 32 + unit_lane(row, col), bit,
          unit_half(scales[unit_scale(m.units, row, col)])};
}
__host__ __device__ inline int unit_code(const DeviceMatrix& m, std::uint64_t fields) {
  return code_of_field(m.units, static_cast<unsigned>(fields) & ((1u << m.units.bits) - 1));
}
__host__ __device__ inline float unit_value(const DeviceMatrix& m, int row, int col) {
  const UnitAt at = unit_at(m, row, col);
  const int code = unit_code(m, at.fields(m.units.bits));
  return m.codebook[static_cast<long long>(code) * m.dim + col % m.dim] * at.scale;
}

}  // namespace assay::kernels
