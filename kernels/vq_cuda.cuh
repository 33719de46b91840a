// Device code of grouped products with VQ matrices: a block multiplies a slice of x with its share
// of the rows of every matrix that is asked for, and writes partial results, one a slice, that
// whoever reads them adds up in order. A row's arithmetic depends on its matrix alone.
#pragma once

#include <cuda_fp16.h>

#include <type_traits>

#include "kernels/cuda_check.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/moe_cuda.h"

namespace assay::kernels {

constexpr int kSumsColumns = 128;  // sub-vectors of a slice of partial sums: 4 a lane
constexpr int kSumsRows = 8;       // rows that a warp has in hand
constexpr int kSumsThreads = 1024;
constexpr int kVectorsOfLane = 8;  // sub-vectors of a lane with codewords
constexpr int kCodewordsColumns = 32 * kVectorsOfLane;
constexpr int kCodewordsRows = 4;
constexpr int kCodewordsThreads = 512;
constexpr int kMaxJobs = 64;  // matrices of one block

__host__ __device__ constexpr bool has_partial_sums(MoeTier::Design design) {
  return design == MoeTier::Design::kPartialSums;
}
// 12-bit indices have codewords alone.
__host__ __device__ inline MoeTier::Design design_of(const DeviceMatrix& m, bool codewords_only) {
  return m.index_bits == 8 && !codewords_only ? MoeTier::Design::kPartialSums
                                              : MoeTier::Design::kCodewords;
}
__host__ __device__ inline int n_slices_of(const DeviceMatrix& m, MoeTier::Design design) {
  static_assert(kSumsColumns == 128 && kCodewordsColumns == 256);
  const int n_vectors = m.n_cols >> (m.dim == 8 ? 3 : 2);  // dim is 4 or 8: no division on the way
  const int shift = has_partial_sums(design) ? 7 : 8;
  return (n_vectors + (1 << shift) - 1) >> shift;
}

// What a block needs of one matrix.
struct VqJob {
  const unsigned* words;
  const __half* scales;
  float* out;  // (n_rows) partial results of this slice
  int row_words, n_groups, group;
};

// The block's x of a slice, in shared memory once it is staged, zero beyond the matrix. What a lane
// reads, its columns in 16-byte pieces, lies 16 bytes further from the next lane's: no two of eight
// share a bank.
struct VqSlice {
  const float* x;
  int slice, n_rows, n_cols;
};
constexpr int kLanePad = 4;
__host__ __device__ constexpr int x_floats(int columns_of_lane) {
  return 32 * (columns_of_lane + kLanePad);
}

// n values from x on, one after the other.
template <int n>
__device__ inline void read_x(const float* x, float (&out)[n]) {
#pragma unroll
  for (int i = 0; i < n; i += 4)
    *reinterpret_cast<float4*>(out + i) = *reinterpret_cast<const float4*>(x + i);
}

// A batch of rows in a warp's hands. Sums of lanes that share a scale are added before it is
// multiplied in: with kScaleLanes lanes to a scale a lane scales kRows / kScaleLanes of the rows.
template <int kRows, int kWords, int kScaleLanes>
struct VqBatch {
  unsigned word[kRows][kWords];
  __half scale[kRows / kScaleLanes];
};

// Which of kRows rows a lane has, or begins with, when lanes apart by less than `n_lanes` have
// halved the rows between them.
template <int kRows>
__device__ constexpr int row_of_lane(int lane, int n_lanes) {
  int row = 0;
  for (int offset = 1, n = kRows / 2; offset < n_lanes && n > 0; offset *= 2, n /= 2)
    if ((lane & offset) != 0) row += n;
  return row;
}

// Sums of kRows values over the lanes, scaled on the way, as one tree. Lane l < kRows returns that
// of row row_of_lane(l, 32).
template <int kRows, int kScaleLanes>
__device__ inline float sum_rows(float (&v)[kRows], const __half (&scale)[kRows / kScaleLanes],
                                 int lane) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  int n = kRows;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    if (offset == kScaleLanes)
#pragma unroll
      for (int r = 0; r < kRows / kScaleLanes; ++r) v[r] *= __half2float(scale[r]);
    if (n > 1) {
      n /= 2;
      const bool upper = (lane & offset) != 0;
#pragma unroll
      for (int r = 0; r < kRows / 2; ++r) {
        if (r >= n) break;
        const float give = upper ? v[r] : v[r + n], keep = upper ? v[r + n] : v[r];
        v[r] = keep + __shfl_xor_sync(kAll, give, offset);
      }
    } else {
      v[0] += __shfl_xor_sync(kAll, v[0], offset);
    }
  }
  return v[0];
}

// The rows of `jobs` times the slice, a run of batches to a warp: `prepare` fills shared memory
// while the first codes are on their way and returns when all of it is there, `dot` multiplies this
// lane's part of one row, unscaled.
template <int kRows, int kWords, int kScaleLanes, class Prepare, class Dot>
__device__ inline void multiply_rows(const VqJob* jobs, int n_jobs, const VqSlice& s,
                                     int columns_of_lane, int part, int n_parts,
                                     const Prepare& prepare, const Dot& dot) {
  const int lane = threadIdx.x % 32;
  const int first_word = (s.slice * 32 + lane) * kWords,
            column = (s.slice * 32 + lane) * columns_of_lane;
  const int scale_row = row_of_lane<kRows>(lane, kScaleLanes),
            out_row = row_of_lane<kRows>(lane, 32);
  const int per_job = (s.n_rows + kRows - 1) / kRows;
  const long long n_batches = static_cast<long long>(per_job) * n_jobs;
  const int begin = static_cast<int>(n_batches * part / n_parts),
            end = static_cast<int>(n_batches * (part + 1) / n_parts);

  int job = begin / per_job, row = begin % per_job * kRows;
  const unsigned* words = nullptr;
  const __half* scales = nullptr;
  float* out = nullptr;
  int row_words = 0, n_groups = 0;
  // Every load is made: words beyond a row are its last one, whose values meet x = 0, and rows
  // beyond the matrix are not written.
  int offset[kWords];
  const auto enter = [&] {  // job and row
    const VqJob& j = jobs[job];
    row_words = j.row_words;
    n_groups = j.n_groups;
    out = j.out;
    words = j.words + static_cast<size_t>(row) * row_words;
#pragma unroll
    for (int w = 0; w < kWords; ++w) offset[w] = min(first_word + w, row_words - 1);
    scales = j.scales + static_cast<size_t>(row) * n_groups + min(column / j.group, n_groups - 1);
  };
  const auto load = [&] {
    VqBatch<kRows, kWords, kScaleLanes> batch;
    const int last = s.n_rows - 1 - row;
    const auto load_rows = [&](const auto& at) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int w = 0; w < kWords; ++w)
          batch.word[r][w] = __ldcs(words + static_cast<size_t>(at(r)) * row_words + offset[w]);
#pragma unroll
      for (int r = 0; r < kRows / kScaleLanes; ++r)
        batch.scale[r] = __ldg(scales + static_cast<size_t>(at(scale_row + r)) * n_groups);
    };
    if (last >= kRows - 1)
      load_rows([](int r) { return r; });
    else
      load_rows([&](int r) { return min(r, last); });
    return batch;
  };

  VqBatch<kRows, kWords, kScaleLanes> batch;
  if (begin < end) {
    enter();
    batch = load();
    // The rows to come, as far as this matrix goes, are fetched while the table is built.
    const unsigned* slice_words =
        jobs[job].words + static_cast<size_t>(row) * row_words + s.slice * 32 * kWords;
    const int n_ahead = min(kRows * (end - begin), s.n_rows - row);
    for (int r = kRows + lane; r < n_ahead; r += 32)
#pragma unroll
      for (int line = 0; line < kWords; ++line)
        if (s.slice * 32 * kWords + line * 32 < row_words)
          prefetch_line(slice_words + static_cast<size_t>(r) * row_words + line * 32);
  }
  prepare();
  for (int i = begin; i < end; ++i) {
    const VqBatch<kRows, kWords, kScaleLanes> now = batch;
    float* const out_now = out + row + out_row;
    const bool has_out = lane < kRows && row + out_row < s.n_rows;
    row += kRows;
    if (row >= s.n_rows) {
      row = 0;
      if (++job < n_jobs) enter();
    } else {
      words += static_cast<size_t>(kRows) * row_words;
      scales += static_cast<size_t>(kRows) * n_groups;
    }
    if (i + 1 < end) batch = load();
    float sum[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] = dot(now.word[r]);
    const float total = sum_rows<kRows, kScaleLanes>(sum, now.scale, lane);
    if (has_out) *out_now = total;
  }
}

// What a block of partial sums shares behind its x: the table, then the codebook.
constexpr int kSumsTableFloats = 4 * 256 * 32;
__host__ __device__ constexpr int sums_floats(int dim) { return kSumsTableFloats + 256 * dim; }

// The codebook into shared memory, by copies that multiply_partial_sums waits for: it is no other
// kernel's result, so they may set out before anything is awaited. A table that is built from
// global memory waits for it, codeword after codeword, a fifth of the launch.
template <int kDim>
__device__ inline void fetch_codebook(float* table, const DeviceMatrix& like) {
  constexpr int kPiecesOfCode = kDim / 4;
  float* book = table + kSumsTableFloats;
  for (int i = threadIdx.x; i < 256 * kPiecesOfCode; i += kSumsThreads) {
    const int code = min(i / kPiecesOfCode, like.n_codes - 1), piece = i % kPiecesOfCode;
    copy_piece(shared_address(book + 4 * i), like.codebook + code * kDim + 4 * piece, 16);
  }
  close_copies();
}

// table: (2, 256, 2, 32) floats. Column l of parts (h, ., p, .) belongs to sub-vector 4 l + 2 h + p
// of the slice, so lane l reads bank l whatever its codes are, and a code is byte 1 of an entry's
// address, its lane byte 0. Columns beyond the matrix are zero for every index.
template <int kDim, int kScaleLanes>
__device__ inline void multiply_partial_sums(float* table, const VqJob* jobs, int n_jobs,
                                             const VqSlice& s, int part, int n_parts,
                                             const auto& stage) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float* book = table + kSumsTableFloats;
  const auto build = [&] {
    const int q = warp % 4;
    float x[kDim];
    read_x<kDim>(s.x + lane * (4 * kDim + kLanePad) + q * kDim, x);
    constexpr int kWarps = kSumsThreads / 32;
#pragma unroll 4
    for (int code = warp / 4; code < 256; code += kWarps / 4) {
      const float4* c = reinterpret_cast<const float4*>(book + code * kDim);
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kDim / 4; ++i) {
        const float4 v = c[i];
        dot = fmaf(v.x, x[4 * i], dot);
        dot = fmaf(v.y, x[4 * i + 1], dot);
        dot = fmaf(v.z, x[4 * i + 2], dot);
        dot = fmaf(v.w, x[4 * i + 3], dot);
      }
      table[((q / 2 * 256 + code) * 2 + q % 2) * 32 + lane] = dot;
    }
  };
  const auto prepare = [&] {
    stage();
    await_copies<0>();
    __syncthreads();
    build();
    __syncthreads();
  };
  const char* base = reinterpret_cast<const char*>(table);
  const unsigned lane_bytes = 4u * static_cast<unsigned>(lane);
  const auto at = [&](unsigned word, int q) {
    const unsigned code_and_lane =
        __byte_perm(word, lane_bytes, 0x5504u | static_cast<unsigned>(q) << 4);
    return *reinterpret_cast<const float*>(base + q / 2 * 65536 + q % 2 * 128 + code_and_lane);
  };
  multiply_rows<kSumsRows, 1, kScaleLanes>(jobs, n_jobs, s, 4 * kDim, part, n_parts, prepare,
                                           [&](const unsigned(&word)[1]) {
                                             const unsigned w = word[0];
                                             return (at(w, 0) + at(w, 1)) + (at(w, 2) + at(w, 3));
                                           });
}

// Code k of a lane's words, shifted so that its lowest bit is bit kShift.
template <int kBits, int kShift>
__device__ inline unsigned shifted_code(const unsigned* word, int k) {
  const int bit = k * kBits, w = bit / 32, at = bit % 32;
  if (at + kBits > 32) return __funnelshift_r(word[w], word[w + 1], at) << kShift;
  return at >= kShift ? word[w] >> (at - kShift) : word[w] << (kShift - at);
}

constexpr int log2_of(int n) { return n <= 1 ? 0 : 1 + log2_of(n / 2); }

// table: (n_codes, kCopies, kDim) binary16; a lane reads the copy of its own banks.
template <int kDim, int kBits, int kCopies, int kScaleLanes, class Stage>
__device__ inline void multiply_codewords(__half* table, const DeviceMatrix& like,
                                          const VqJob* jobs, int n_jobs, const VqSlice& s, int part,
                                          int n_parts, const Stage& stage) {
  const int lane = threadIdx.x % 32;
  float x[kVectorsOfLane][kDim];
  const auto prepare = [&] {
    using Piece = std::conditional_t<kDim == 8, uint4, uint2>;
    const Piece* from = static_cast<const Piece*>(like.codebook_f16);
    Piece* to = reinterpret_cast<Piece*>(table);
#pragma unroll 4
    for (int code = threadIdx.x; code < 1 << kBits; code += kCodewordsThreads) {
      const Piece piece = from[min(code, like.n_codes - 1)];
#pragma unroll
      for (int copy = 0; copy < kCopies; ++copy) to[code * kCopies + copy] = piece;
    }
    stage();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kVectorsOfLane; ++k)
      read_x<kDim>(s.x + lane * (kVectorsOfLane * kDim + kLanePad) + k * kDim, x[k]);
  };
  constexpr int kShift = log2_of(kCopies * kDim * 2);
  constexpr unsigned kMask = ((1u << kBits) - 1) << kShift;
  const char* base = reinterpret_cast<const char*>(table);
  const unsigned copy = static_cast<unsigned>(lane % kCopies) * (2 * kDim);
  multiply_rows<kCodewordsRows, kBits * kVectorsOfLane / 32, kScaleLanes>(
      jobs, n_jobs, s, kVectorsOfLane * kDim, part, n_parts, prepare,
      [&](const unsigned(&word)[kBits * kVectorsOfLane / 32]) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < kVectorsOfLane; ++k) {
          const char* entry = base + (shifted_code<kBits, kShift>(word, k) & kMask | copy);
          __half2 v[kDim / 2];
          if constexpr (kDim == 8)
            *reinterpret_cast<uint4*>(v) = *reinterpret_cast<const uint4*>(entry);
          else
            *reinterpret_cast<uint2*>(v) = *reinterpret_cast<const uint2*>(entry);
#pragma unroll
          for (int i = 0; i < kDim / 2; ++i) {
            const float2 f = __half22float2(v[i]);
            sum = fmaf(f.x, x[k][2 * i], sum);
            sum = fmaf(f.y, x[k][2 * i + 1], sum);
          }
        }
        return sum;
      });
}

}  // namespace assay::kernels
