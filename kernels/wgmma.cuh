// Warpgroup matrix multiplications of sm_90a: four warps multiply 64 rows, which they hold in
// registers as fragments of mma.sync's m16n8k16 (16 rows to a warp), with a tile in shared memory.
#pragma once

#include <cstdint>

#include "kernels/mma_tile.cuh"

namespace assay::kernels {

// How a tile lies: eight rows of 128 bytes, swizzled as piece_offset() does, are 1024 bytes that
// follow each other.
enum class TileLayout : std::uint64_t { kPlain = 0, kSwizzled = 1 };
// Strides in bytes: to the next 16 bytes (plain) or 128 bytes (swizzled, transposed) of a row; to
// the next eight rows.
__device__ inline std::uint64_t describe_tile(unsigned address, int next_columns, int next_rows,
                                              TileLayout layout) {
  const auto in_pieces = [](int n_bytes) {
    return static_cast<std::uint64_t>((n_bytes & 0x3FFFF) >> 4);
  };
  return in_pieces(static_cast<int>(address)) | in_pieces(next_columns) << 16 |
         in_pieces(next_rows) << 32 | static_cast<std::uint64_t>(layout) << 62;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Between what registers held before and multiplications that use or add to them.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kOpen closed groups are on their way.
template <int kOpen>
__device__ inline void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kOpen) : "memory");
}
// The compiler does not see that products in flight write these: nothing may move across.
template <int kN>
__device__ inline void hold(float (&values)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

#define ASSAY_F4(a, i) "+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3])
#define ASSAY_F16(a, i) ASSAY_F4(a, i), ASSAY_F4(a, i + 4), ASSAY_F4(a, i + 8), ASSAY_F4(a, i + 12)

// sum (64, 64) += left (64, 16) · right (64, 16)ᵀ, of binary16
__device__ inline void multiply_rows(float (&sum)[32], const unsigned (&left)[4],
                                     std::uint64_t right) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
      : ASSAY_F16(sum, 0), ASSAY_F16(sum, 16)
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right));
}
template <int kTransposed>
__device__ inline void multiply_128(float (&sum)[64], const unsigned (&left)[4],
                                    std::uint64_t right) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, %69;\n}"
      : ASSAY_F16(sum, 0), ASSAY_F16(sum, 16), ASSAY_F16(sum, 32), ASSAY_F16(sum, 48)
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "n"(kTransposed));
}
// sum (64, 128) += left (64, 16) · right (128, 16)ᵀ, of binary16
__device__ inline void multiply_rows(float (&sum)[64], const unsigned (&left)[4],
                                     std::uint64_t right) {
  multiply_128<0>(sum, left, right);
}
// The same, of the first 64 of both.
__device__ inline void multiply_first_rows(float (&sum)[64], const unsigned (&left)[4],
                                           std::uint64_t right) {
  multiply_rows(reinterpret_cast<float(&)[32]>(sum), left, right);
}
// sum (64, 128) += left (64, 16) · right (16, 128), of binary16
__device__ inline void multiply_columns(float (&sum)[64], const unsigned (&left)[4],
                                        std::uint64_t right) {
  multiply_128<1>(sum, left, right);
}

#undef ASSAY_F16
#undef ASSAY_F4

#endif

}  // namespace assay::kernels
