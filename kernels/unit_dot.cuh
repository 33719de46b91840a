// Device code of products with units (vq_units.h): a codebook's tables in shared memory, a warp's
// part of x as fragments of mma.m16n8k16, and the dot products of 8 rows.
//
// A codeword is, as it lies in the codebook, what a lane hands to mma as its left operand: rows g
// and g + 8 of that are weight row g, with columns 0, 1, 4, 5 and 2, 3, 6, 7 of the lane's eight.
// The right operand has x of the former columns in its columns 0 and 1, high and low half, and of
// the latter in 2 and 3; so lanes 4 g and 4 g + 1 get all of row g between them.
#pragma once

#include <cuda_fp16.h>

#include <type_traits>

#include "kernels/bulk_copy.cuh"
#include "kernels/mma_tile.cuh"
#include "kernels/split_half.cuh"
#include "kernels/vq_units.h"

namespace assay::kernels {

// sum (16, 8) += left (16, 16) · right (8, 16)ᵀ of binary16, in float32.
__device__ inline void multiply_add_f16(float (&sum)[4], const unsigned (&left)[4],
                                        const unsigned (&right)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

// The codebooks of a launch and where their tables lie.
struct UnitTables {
  const uint4* codebook[UnitLaunch::kTables];  // binary16
  int n_pieces[UnitLaunch::kTables];           // of 16 bytes: of the table, 0 if there is none
  int last_piece[UnitLaunch::kTables];         // of the codebook, which may be shorter
  int copies[UnitLaunch::kTables];
  int at[UnitLaunch::kTables];  // bytes
};

inline UnitTables tables_of(const UnitLaunch& l,
                            const void* const (&codebook)[UnitLaunch::kTables]) {
  constexpr int kPieces[] = {256, 128, 4096, 2048};
  UnitTables t{};
  for (int i = 0; i < UnitLaunch::kTables; ++i) {
    const UnitLaunch::Table& table = l.table[i];
    t.at[i] = static_cast<int>(l.table_at(i));
    if (table.copies == 0) continue;
    const int dim = i == UnitLaunch::k8x256 || i == UnitLaunch::k8x4096 ? 8 : 4;
    t.codebook[i] = static_cast<const uint4*>(codebook[i]);
    t.n_pieces[i] = kPieces[i];
    t.last_piece[i] = (table.n_codes * dim + 7) / 8 - 1;
    t.copies[i] = table.copies;
  }
  return t;
}

// What a unit's fields are: their dim and bits in one number; 0 is none.
__host__ __device__ constexpr int form_code(int dim, int bits) {
  return bits == 0 ? 0 : (dim == 8 ? 16 : 0) + bits;
}
// Whether a launch whose units are all of the form kOnly (0: of any) has this table.
template <int kOnly>
constexpr bool has_table(UnitLaunch::TableOf table) {
  constexpr int kBits = kOnly % 16;
  if (kOnly == 0) return true;
  if (kOnly >= 16) return table == (kBits == 8 ? UnitLaunch::k8x256 : UnitLaunch::k8x4096);
  return table == (kBits == 8 ? UnitLaunch::k4x256 : UnitLaunch::k4x4096);
}

// The first copies of the large tables, which lie as their codebooks do, by one thread; `arrived`
// counts them.
template <int kOnly>
__device__ inline void fetch_tables(const UnitTables& t, unsigned char* tables,
                                    std::uint64_t* arrived) {
  constexpr UnitLaunch::TableOf kLarge[] = {UnitLaunch::k8x4096, UnitLaunch::k4x4096};
  const auto bytes = [&](UnitLaunch::TableOf i) {
    return has_table<kOnly>(i) && t.n_pieces[i] > 0 ? (t.last_piece[i] + 1) * 16 : 0;
  };
  expect_arrivals(arrived, bytes(kLarge[0]) + bytes(kLarge[1]));
#pragma unroll
  for (const UnitLaunch::TableOf i : kLarge)
    if (bytes(i) > 0) copy_later(tables + t.at[i], t.codebook[i], bytes(i), arrived);
}

// The other copies, and the small tables, by n_threads threads: little code, for what runs once is
// as long as its instructions take to arrive.
template <int kStride, int kOnly>
class TableLoader {
 public:
  __device__ TableLoader(const UnitTables& t, unsigned char* tables, int thread, int n_threads)
      : t_(t), tables_(tables), thread_(thread), n_threads_(n_threads) {
    piece_8x256_ = fetch(UnitLaunch::k8x256, thread);
    piece_4x256_ = fetch(UnitLaunch::k4x256, thread);
  }
  __device__ void store() const {
    if (has_table<kOnly>(UnitLaunch::k8x256)) {
      uint4 piece = piece_8x256_;
      for (int i = thread_; i < t_.n_pieces[UnitLaunch::k8x256]; i += n_threads_) {
        store_8x256(i, piece);
        piece = fetch(UnitLaunch::k8x256, i + n_threads_);
      }
    }
    if (has_table<kOnly>(UnitLaunch::k4x256)) {
      uint4 piece = piece_4x256_;
      for (int i = thread_; i < t_.n_pieces[UnitLaunch::k4x256]; i += n_threads_) {
        store_4x256(i, piece);
        piece = fetch(UnitLaunch::k4x256, i + n_threads_);
      }
    }
  }
  // Once the first copies have arrived.
  __device__ void copy() const {
    if (has_table<kOnly>(UnitLaunch::k8x4096))
      for (int i = thread_; i < t_.n_pieces[UnitLaunch::k8x4096]; i += n_threads_) copy_8x4096(i);
    if (has_table<kOnly>(UnitLaunch::k4x4096))
      for (int i = thread_; i < t_.n_pieces[UnitLaunch::k4x4096]; i += n_threads_) copy_4x4096(i);
  }

 private:
  __device__ uint4 fetch(UnitLaunch::TableOf table, int i) const {
    return has_table<kOnly>(table) && i < t_.n_pieces[table]
               ? __ldg(t_.codebook[table] + min(i, t_.last_piece[table]))
               : uint4{0, 0, 0, 0};
  }
  // Copies begin with another one at each thread: those of a quarter or half warp are in different
  // banks.
  __device__ void store_8x256(int i, uint4 v) const {
    constexpr int kCopies = kStride == 256 ? 8 : kStride / 16;
    unsigned char* row = tables_ + t_.at[UnitLaunch::k8x256] + i * kStride;
#pragma unroll
    for (int c = 0; c < kCopies; ++c) *reinterpret_cast<uint4*>(row + (c + i) % kCopies * 16) = v;
  }
  __device__ void store_4x256(int i, uint4 v) const {
    constexpr int kCopies = kStride == 256 ? 16 : kStride / 8;
    unsigned char* row = tables_ + t_.at[UnitLaunch::k4x256] + 2 * i * kStride;
#pragma unroll 4
    for (int c = 0; c < kCopies; ++c) {
      unsigned char* to = row + (c + i) % kCopies * 8;
      *reinterpret_cast<uint2*>(to) = {v.x, v.y};
      *reinterpret_cast<uint2*>(to + kStride) = {v.z, v.w};
    }
  }
  __device__ void copy_8x4096(int i) const {
    uint4* table = reinterpret_cast<uint4*>(tables_ + t_.at[UnitLaunch::k8x4096]);
    for (int c = 1; c < t_.copies[UnitLaunch::k8x4096]; ++c)
      table[c * 4096 + table_place(8, c, i)] = table[i];
  }
  // Both entries of a piece stay neighbours, for a copy's places of them differ by one.
  __device__ void copy_4x4096(int i) const {
    uint4* table = reinterpret_cast<uint4*>(tables_ + t_.at[UnitLaunch::k4x4096]);
    const uint4 v = table[i];
    for (int c = 1; c < t_.copies[UnitLaunch::k4x4096]; ++c) {
      const int place = table_place(4, c, 2 * i);
      table[c * 2048 + place / 2] = place % 2 == 0 ? v : uint4{v.z, v.w, v.x, v.y};
    }
  }

  const UnitTables& t_;
  unsigned char* const tables_;
  const int thread_, n_threads_;
  uint4 piece_8x256_, piece_4x256_;
};

// A warp's 512 columns of x as right operands, 16 of them, in units of a power of two that makes
// the largest 2^14 to 2^15; `unit` is that power.
struct XPart {
  unsigned right[16][2];
  float unit;
};
// As they arrive: a lane of the operand's columns 0 to 3 has the first eight of its operands, and
// the one 16 above, of columns 4 to 7, whose results nobody reads, has the others.
struct RawPart {
  float2 v[8][2];
};

// x + column is the part's first column; n_left columns are left of the row, an even number.
__device__ inline void fetch_part(RawPart& raw, const float* x, int n_left, int lane) {
  const int first = lane / 16 * 8, pair = lane / 8 % 2, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int c = (first + i) * 32 + t * 8 + half * 4 + pair * 2;
      raw.v[i][half] = c < n_left ? *reinterpret_cast<const float2*>(x + c) : float2{0, 0};
    }
}

// A NaN, or an infinity (whose low half is one), stays one.
__device__ inline void split_part(XPart& x, const RawPart& raw, int lane) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      largest = fmaxf(largest, fmaxf(fabsf(raw.v[i][half].x), fabsf(raw.v[i][half].y)));
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2)
    largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, offset));
  const auto [scale, undo] = half_scale(largest);
  x.unit = undo;
  const bool low = lane / 4 % 2 != 0;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const SplitHalf2 s = split_half2(raw.v[i][half].x * scale, raw.v[i][half].y * scale);
      x.right[i][half] = low ? s.low : s.high;
      x.right[8 + i][half] = __shfl_xor_sync(kAll, x.right[i][half], 16);
    }
}

// Field i of a lane's stream, its lowest bit at bit kShift, nothing beside it.
template <int kBits, int kShift>
__device__ inline unsigned shifted_field(const unsigned* words, int i) {
  constexpr unsigned kMask = ((1u << kBits) - 1) << kShift;
  const int bit = i * kBits, w = bit / 32, at = bit % 32;
  if (at + kBits > 32) return __funnelshift_r(words[w], words[w + 1], at) << kShift & kMask;
  return (at >= kShift ? words[w] >> (at - kShift) : words[w] << (kShift - at)) & kMask;
}

// Where the codeword of field i is in its table, in bytes. A byte of 8 bits and the copy's place
// beside it are the address of a table whose entries lie 256 bytes apart.
template <int kDim, int kBits, int kStride>
__device__ inline unsigned entry_of(const unsigned* words, int i, unsigned copy) {
  if constexpr (kBits > 8) {
    return shifted_field < kBits, kDim == 8 ? 4 : 3 > (words, i);
  } else if constexpr (kStride == 256) {
    return __byte_perm(words[i / 4], copy, 0x5504u | static_cast<unsigned>(i % 4) << 4);
  } else {
    static_assert(kStride == 32);
    return shifted_field<8, 5>(words, i) | copy;
  }
}

// What a lane needs of a unit.
template <int kDim, int kBits, int kScales>
struct UnitCodes {
  static constexpr UnitForm kForm = {kDim, kBits, kScales};
  unsigned words[kForm.words()];
  alignas(16) __half2 scales[kScales / 2];

  __device__ void read(const unsigned char* unit, int lane) {
#pragma unroll
    for (int w = 0; w < kForm.words(); ++w)
      words[w] = reinterpret_cast<const unsigned*>(unit)[w * 32 + lane];
    using Scales = std::conditional_t<kScales == 8, uint4, uint2>;
    *reinterpret_cast<Scales*>(scales) =
        *reinterpret_cast<const Scales*>(unit + kForm.scales_at() + lane / 4 * (2 * kScales));
  }
};

// Lanes 4 g return row g of a unit times x: sums of a scale's columns, scaled, in their order.
template <int kDim, int kBits, int kScales, int kStride>
__device__ inline float unit_dot(const unsigned char* table,
                                 const UnitCodes<kDim, kBits, kScales>& unit, const XPart& x,
                                 int lane) {
  constexpr int kSteps = 16 / kScales;
  constexpr int kCopies = kStride == 256 ? 128 / (2 * kDim) : kStride / (2 * kDim);
  const unsigned copy = static_cast<unsigned>(lane % kCopies) * (2 * kDim);
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kScales; ++s) {
    float c[4] = {};
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const int i = s * kSteps + k;
      alignas(16) unsigned left[4];
      if constexpr (kDim == 8) {
        *reinterpret_cast<uint4*>(left) = *reinterpret_cast<const uint4*>(
            table + entry_of<8, kBits, kStride>(unit.words, i, copy));
      } else {
#pragma unroll
        for (int p = 0; p < 2; ++p)
          *reinterpret_cast<uint2*>(left + 2 * p) = *reinterpret_cast<const uint2*>(
              table + entry_of<4, kBits, kStride>(unit.words, 2 * i + p, copy));
      }
      multiply_add_f16(c, left, x.right[i]);
    }
    const float scale =
        s % 2 == 0 ? __low2float(unit.scales[s / 2]) : __high2float(unit.scales[s / 2]);
    sum = fmaf(scale, lane % 2 == 0 ? c[0] + c[1] : c[2] + c[3], sum);
  }
  sum *= x.unit;
  return sum + __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
}

}  // namespace assay::kernels
