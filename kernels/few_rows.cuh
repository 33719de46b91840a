// Products by the row of one to a few tokens. What a warp has read and decoded of its rows serves
// all tokens, what it has read of x all rows. A lane's chain of FMAs and the tree over lanes are
// the same for every number of tokens, so a token's bits are those that it has alone.
#pragma once

#include <type_traits>

#include "kernels/row_dot.cuh"

namespace assay::kernels {

// How the pieces lie that a lane has of a row; kOther, by row_dot.cuh, takes every matrix.
enum class RowForm { kBf16, kF16, kF32, kFp8, kGptq4, kGptq8, kOther };

inline RowForm row_form_of(const DeviceMatrix& m) {
  switch (m.kind) {
    case DeviceMatrix::Kind::kBf16:
      return m.n_cols % 8 == 0 ? RowForm::kBf16 : RowForm::kOther;
    case DeviceMatrix::Kind::kF16:
      return m.n_cols % 8 == 0 ? RowForm::kF16 : RowForm::kOther;
    case DeviceMatrix::Kind::kF32:
      return m.n_cols % 4 == 0 ? RowForm::kF32 : RowForm::kOther;
    case DeviceMatrix::Kind::kFp8:
      return has_whole_pieces(m, 4) ? RowForm::kFp8 : RowForm::kOther;
    case DeviceMatrix::Kind::kGptq:
      if (m.in_units() || !has_whole_pieces(m, 32 / m.bits)) return RowForm::kOther;
      return m.bits == 8 ? RowForm::kGptq8 : RowForm::kGptq4;
    case DeviceMatrix::Kind::kVq:
      break;
  }
  return RowForm::kOther;
}

// Weights pass a multiprocessor once: its first-level cache is for x.
__device__ inline uint4 load_once(const uint4* from) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(from));
  return v;
}
__device__ inline unsigned load_once(const unsigned* from) {
  unsigned v;
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

// kQuads times four columns a piece. kScaled: a piece's sum is multiplied by its scale.
template <RowForm kForm>
struct PieceOf {
  using Type = unsigned;
  static constexpr int kQuads = kForm == RowForm::kGptq4 ? 2 : 1;
  static constexpr bool kScaled = true;
};
template <>
struct PieceOf<RowForm::kBf16> {
  using Type = uint4;
  static constexpr int kQuads = 2;
  static constexpr bool kScaled = false;
};
template <>
struct PieceOf<RowForm::kF16> : PieceOf<RowForm::kBf16> {};
template <>
struct PieceOf<RowForm::kF32> : PieceOf<RowForm::kBf16> {
  static constexpr int kQuads = 1;
};
// How a warp reads its rows: pieces of each that are on their way before they are needed, and
// blocks of a multiprocessor, at least, which is what registers are shared out for.
struct ReadAhead {
  int pieces, blocks;
};
// Two ways, for grids that fill one or the other better: crowded has more blocks, and no more
// pieces. Measured, of four rows: docs/design/cuda-kernels.md; of fewer, which only small matrices
// have, as many as registers hold.
constexpr ReadAhead read_ahead(RowForm form, int n_rows, int n_tokens, bool crowded) {
  if (form == RowForm::kOther) return {0, n_tokens == 1 ? 3 : n_tokens <= 4 ? 2 : 1};
  const bool is_gptq = form == RowForm::kGptq4 || form == RowForm::kGptq8;
  const bool is_code = is_gptq || form == RowForm::kFp8;
  if (n_rows == 4) {
    if (n_tokens == 1 && is_code) return is_gptq ? ReadAhead{4, 3} : ReadAhead{4, 4};
    if (n_tokens == 1) return crowded ? ReadAhead{1, 4} : ReadAhead{2, 3};
    if (n_tokens <= 4 && is_gptq) return {2, 2};
    if (n_tokens == 2 && is_code) return {2, 4};
    if (n_tokens <= 4) return crowded ? ReadAhead{is_code ? 2 : 1, 3} : ReadAhead{2, 2};
    return {1, 2};
  }
  if (n_tokens == 1) return {is_code || n_rows == 1 ? 8 : 4, 3};
  if (n_tokens <= 4) return {is_code ? 8 : 4, 2};
  return {is_code ? 8 : 2, 2};
}

// Columns 4 quad and following of a piece.
template <RowForm kForm>
__device__ inline float4 weights_of(const typename PieceOf<kForm>::Type& p, int quad, float zero) {
  if constexpr (kForm == RowForm::kBf16) {
    return quad == 0 ? bf16_quad(p.x, p.y) : bf16_quad(p.z, p.w);
  } else if constexpr (kForm == RowForm::kF16) {
    return quad == 0 ? f16_quad(p.x, p.y) : f16_quad(p.z, p.w);
  } else if constexpr (kForm == RowForm::kF32) {
    return {__uint_as_float(p.x), __uint_as_float(p.y), __uint_as_float(p.z), __uint_as_float(p.w)};
  } else if constexpr (kForm == RowForm::kFp8) {
    return fp8_values(p);
  } else {
    constexpr int kBits = kForm == RowForm::kGptq8 ? 8 : 4;
    return gptq_quad<kBits>(p, 4 * quad, zero);
  }
}

// Its quads the other way around.
__device__ inline uint4 turned(uint4 p) { return {p.z, p.w, p.x, p.y}; }
__device__ inline unsigned turned(unsigned p) { return __funnelshift_l(p, p, 16); }

// kRows rows of a matrix from `row`, a multiple of kRows below n_rows, on; instead of those that
// there are not, the last one.
template <RowForm kForm, int kRows>
class MatrixRows {
 public:
  using Piece = typename PieceOf<kForm>::Type;

  __device__ MatrixRows(const DeviceMatrix& m, int row) {
    const int n_pieces = m.n_cols / kPieceColumns, last = m.n_rows - 1 - row;
    first_ = static_cast<const Piece*>(m.values) + static_cast<size_t>(row) * n_pieces;
#pragma unroll
    for (int r = 0; r < kRows; ++r) at_[r] = min(r, last) * n_pieces;
    if constexpr (!PieceOf<kForm>::kScaled) return;
    shift_ = log2_of(m.group / kPieceColumns);
    if constexpr (kForm == RowForm::kFp8) {
      // A scale's rows are a multiple of four: all of these have the same.
      scales_ =
          static_cast<const Scale*>(m.scales) + static_cast<size_t>(row / m.group) * m.n_groups;
    } else {
      scales_ = static_cast<const Scale*>(m.scales) + static_cast<size_t>(row) * m.n_groups;
#pragma unroll
      for (int r = 0; r < kRows; ++r) scale_at_[r] = min(r, last) * m.n_groups;
    }
  }
  __device__ Piece fetch(int r, int i) const { return load_once(first_ + at_[r] + i); }
  // Of piece i: the scale, and what zero is (gptq_value).
  __device__ float2 scale(int r, int i) const {
    if constexpr (kForm == RowForm::kFp8)
      return {__ldg(scales_ + (i >> shift_)), 0};
    else
      return __ldg(scales_ + scale_at_[r] + (i >> shift_));
  }

 private:
  static constexpr int kPieceColumns = 4 * PieceOf<kForm>::kQuads;
  using Scale = std::conditional_t<kForm == RowForm::kFp8, float, float2>;
  const Piece* first_;
  const Scale* scales_;
  int at_[kRows], scale_at_[kRows], shift_;
};

// A warp's kRows rows, as many of each of kMatrices of one shape.
template <RowForm kForm, int kMatrices, int kRows, int kTokens, int kAhead>
class FewRows {
 public:
  using Piece = typename PieceOf<kForm>::Type;

  template <class... Matrices>
  __device__ FewRows(int row, const Matrices&... m)
      : n_pieces_(first_of(m...).n_cols / (4 * kQuads)), of_{{m, row}...} {}
  // The first pieces: a model's, so that nothing has to be awaited for them.
  __device__ void begin(RowLane l) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u) fetch(u, l.lane + u * l.n_lanes);
  }
  // Then. sum: (kTokens, kRows), of this lane.
  __device__ void multiply(RowLane l, const TokenInputs<kTokens>& x,
                           float (&sum)[kTokens * kRows]) {
#pragma unroll
    for (float& s : sum) s = 0;
    for (int i = l.lane; i < n_pieces_; i += kAhead * l.n_lanes)
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int j = i + u * l.n_lanes;
        if (j >= n_pieces_) break;
        Piece now[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) now[r] = ahead_[u][r];
        fetch(u, j + kAhead * l.n_lanes);
        add(now, j, x, sum);
      }
  }

 private:
  static constexpr int kQuads = PieceOf<kForm>::kQuads;
  static constexpr int kRowsOf = kRows / kMatrices;

  template <class... Others>
  __device__ static const DeviceMatrix& first_of(const DeviceMatrix& m, const Others&...) {
    return m;
  }
  __device__ void fetch(int u, int i) {
    if (i >= n_pieces_) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) ahead_[u][r] = of_[r / kRowsOf].fetch(r % kRowsOf, i);
  }
  // Of a piece that is two quads, every second four lanes take the second first: what eight lanes
  // ask of x at a time lies on different banks then.
  __device__ void add(Piece (&piece)[kRows], int i, const TokenInputs<kTokens>& x,
                      float (&sum)[kTokens * kRows]) const {
    unsigned turn = 0;
    if constexpr (kQuads == 2) {
      turn = threadIdx.x / 4 % 2;
      if (turn)
#pragma unroll
        for (int r = 0; r < kRows; ++r) piece[r] = turned(piece[r]);
    }
    if constexpr (PieceOf<kForm>::kScaled) {
      float scale[kRows];
      float4 w[kRows][kQuads];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float2 s = of_[r / kRowsOf].scale(r % kRowsOf, i);
        scale[r] = s.x;
#pragma unroll
        for (int q = 0; q < kQuads; ++q) w[r][q] = weights_of<kForm>(piece[r], q, s.y);
      }
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        float part[kRows] = {};
#pragma unroll
        for (int q = 0; q < kQuads; ++q) {
          const float4 of_x = x.quad(t, (i * kQuads + q) ^ turn);
#pragma unroll
          for (int r = 0; r < kRows; ++r) part[r] = fma4(w[r][q], of_x, part[r]);
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          sum[t * kRows + r] = fmaf(scale[r], part[r], sum[t * kRows + r]);
      }
    } else {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        float4 w[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) w[r] = weights_of<kForm>(piece[r], q, 0);
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          const float4 of_x = x.quad(t, (i * kQuads + q) ^ turn);
#pragma unroll
          for (int r = 0; r < kRows; ++r) sum[t * kRows + r] = fma4(w[r], of_x, sum[t * kRows + r]);
        }
      }
    }
  }

  const int n_pieces_;
  const MatrixRows<kForm, kRowsOf> of_[kMatrices];
  Piece ahead_[kAhead][kRows];
};

// A row of each.
template <int kRows, int kTokens>
class FewRows<RowForm::kOther, kRows, kRows, kTokens, 0> {
 public:
  template <class... Matrices>
  __device__ FewRows(int row, const Matrices&... m) : row_(row), of_{&m...} {}
  __device__ void begin(RowLane) {}
  __device__ void multiply(RowLane l, const TokenInputs<kTokens>& x,
                           float (&sum)[kTokens * kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const TokenSums<kTokens> of_row = row_parts(*of_[r], row_, x, l);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) sum[t * kRows + r] = of_row.of[t];
    }
  }

 private:
  const int row_;
  const DeviceMatrix* const of_[kRows];
};

// warp_sum of every `value`, by as few shuffles: the same tree, of which a lane has a part. All
// lanes of each 32 / kValues return the same one, in order.
template <int kOffset = 16, int kValues>
__device__ inline float warp_sums(const float (&value)[kValues]) {
  static_assert(std::has_single_bit(static_cast<unsigned>(kValues)));
  if constexpr (kValues == 1) {
    float sum = value[0];
#pragma unroll
    for (int offset = kOffset; offset > 0; offset /= 2)
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    return sum;
  } else {
    static_assert(kValues <= 2 * kOffset);
    const bool upper = (threadIdx.x & kOffset) != 0;
    float half[kValues / 2];
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) {
      const float low = value[i], high = value[i + kValues / 2];
      half[i] = (upper ? high : low) + __shfl_xor_sync(0xFFFFFFFFu, upper ? low : high, kOffset);
    }
    return warp_sums<kOffset / 2>(half);
  }
}

}  // namespace assay::kernels
