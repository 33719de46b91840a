// Tiles of bfloat16 in shared memory and what tensor cores do with them: mma.sync m16n8k16, which
// sm_90 and sm_120 have alike.
#pragma once

#include <cuda_bf16.h>

namespace assay::kernels {

// A tile's row is 64 values in eight pieces of 16 bytes. Piece p of row r lies where p ^ r % 8
// would: eight rows' pieces of one column, which ldmatrix reads at once, are in different banks.
constexpr int kTileK = 64, kPieces = 8, kPieceValues = 8;
constexpr int kTileRowBytes = 128;
__host__ __device__ constexpr int piece_offset(int row, int piece) {
  return row * kTileRowBytes + ((piece ^ row % 8) << 4);
}

// Where a lane's address for ldmatrix points: of the left operand (16 rows, 16 columns) a lane has
// row `lane % 16`, piece `lane / 16`; of the right one (two times 8 rows, 16 columns) as here.
__host__ __device__ constexpr int left_row(int lane) { return lane % 16; }
__host__ __device__ constexpr int left_piece(int lane) { return lane / 16; }
__host__ __device__ constexpr int right_row(int lane) { return lane / 16 * 8 + lane % 8; }
__host__ __device__ constexpr int right_piece(int lane) { return lane / 8 % 2; }
// The result's rows (and the same plus 8) and first of two columns that a lane has.
__host__ __device__ constexpr int result_row(int lane) { return lane / 4; }
__host__ __device__ constexpr int result_column(int lane) { return lane % 4 * 2; }

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// The first n_bytes (0 to 16) of a 16-byte aligned piece, and zeros behind them.
__device__ inline void copy_piece(unsigned to, const void* from, int n_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n_bytes)
               : "memory");
}
__device__ inline void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most kOpen of the groups that this thread closed are on their way.
template <int kOpen>
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

__device__ inline void store_piece(unsigned to, uint4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}

__device__ inline void load_matrices(unsigned (&out)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// sum (16, 8) += left (16, 16) · right (8, 16)ᵀ, in float32.
__device__ inline void multiply_add(float (&sum)[4], const unsigned (&left)[4], unsigned right_low,
                                    unsigned right_high) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_low), "r"(right_high));
}

}  // namespace assay::kernels
