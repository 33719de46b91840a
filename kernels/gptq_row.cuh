// A row of a GPTQ matrix, however it lies. Plain C++ on both sides, so that a test needs no GPU.
#pragma once

#include <cuda_fp16.h>

#include <bit>
#include <cstring>

#include "kernels/device_matrix.h"

namespace assay::kernels {

template <class T>
__host__ __device__ inline T read_constant(const T* from) {
#ifdef __CUDA_ARCH__
  return __ldg(from);
#else
  return *from;
#endif
}

class GptqRow {
 public:
  __host__ __device__ GptqRow(const DeviceMatrix& m, int row)
      : words_(static_cast<const unsigned*>(m.values)), units_{m.lane_shift} {
    if (m.in_units()) {
      words_ += static_cast<long long>(row / kUnitRows) * m.n_groups * units_.words();
      row_ = row % kUnitRows;
    } else {
      words_ += static_cast<long long>(row) * m.row_words;
      scales_ = static_cast<const float2*>(m.scales) + static_cast<long long>(row) * m.n_groups;
    }
  }

  // Codes i * 32 / bits and following.
  __host__ __device__ unsigned word(int i) const { return read_constant(words_ + place(i)); }
  // Of 8 bits, eight columns: words i and i + 1; i is even.
  __host__ __device__ uint2 pair(int i) const {
    return read_constant(reinterpret_cast<const uint2*>(words_ + place(i)));
  }
  // Of a group of columns: the scale, and 2^23 + z + 1.
  __host__ __device__ float2 scale(int group) const {
    if (scales_ != nullptr) return read_constant(scales_ + group);
    const unsigned word = read_constant(words_ + group * units_.words() + units_.scale(row_));
    __half scale;
    const auto low = static_cast<unsigned short>(word);
    memcpy(&scale, &low, sizeof scale);
    return {__half2float(scale), std::bit_cast<float>(0x4B000000u | (word >> 16 & 0x3FFu))};
  }

 private:
  __host__ __device__ int place(int i) const {
    if (scales_ != nullptr) return i;
    return (i >> (units_.lane_shift + 2)) * units_.words() +
           units_.code(row_, i & (units_.group_words() - 1));
  }

  const unsigned* words_;
  const float2* scales_ = nullptr;  // of rows
  const GptqUnits units_;
  int row_ = 0;  // of a unit
};

}  // namespace assay::kernels
