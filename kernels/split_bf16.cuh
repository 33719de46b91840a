// Float32 as the sum of three bfloat16 values, exactly: of 24 bits, eight each, with float32's own
// range. Tensor cores multiply them as they are. An infinity, or what rounds to one, becomes a NaN.
#pragma once

#include <cuda_bf16.h>

#include <cstring>

namespace assay::kernels {

// Two values side by side, as a register of a matrix fragment has them: lower address first.
__host__ __device__ inline unsigned bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  unsigned word;
  memcpy(&word, &pair, sizeof word);  // CUDA's pairs are no std::bit_cast's
  return word;
}

// Values by size: the second at most 2^-8, the third 2^-16 of the whole.
struct SplitBf16 {
  unsigned part[3];
};
__device__ inline SplitBf16 split_bf16(float x, float y) {
  SplitBf16 out;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    out.part[i] = bf16_pair(x, y);
    x -= __uint_as_float(out.part[i] << 16);
    y -= __uint_as_float(out.part[i] & 0xFFFF0000u);
  }
  return out;
}

}  // namespace assay::kernels
