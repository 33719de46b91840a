// Products by codewords: 16 rows × a few columns of weights at a time, put together in registers
// and used for every token. Include after foreach_target.h.

#if defined(ASSAY_KERNELS_VQ_CODEWORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASSAY_KERNELS_VQ_CODEWORDS_INL_H_
#undef ASSAY_KERNELS_VQ_CODEWORDS_INL_H_
#else
#define ASSAY_KERNELS_VQ_CODEWORDS_INL_H_
#endif

#include <algorithm>

#include "kernels/simd-inl.h"
#include "kernels/vq.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

// 16 binary16 scales.
HWY_INLINE V16 load_scales(const std::byte* p) {
  const auto* halves = reinterpret_cast<const hwy::float16_t*>(p);
#if HWY_TARGET == HWY_AVX3
  const hn::Rebind<hwy::float16_t, V16::D> d;
  return {hn::PromoteTo(V16::D(), hn::LoadU(d, halves))};
#else
  const hn::Rebind<hwy::float16_t, V8::D> d;
  return {{hn::PromoteTo(V8::D(), hn::LoadU(d, halves))},
          {hn::PromoteTo(V8::D(), hn::LoadU(d, halves + 8))}};
#endif
}

// The first n of 16 rows; n may be more than 16, or none.
HWY_INLINE void store_rows(float* y, int n, V16 value, bool accumulate) {
  if (n >= 16)
    (accumulate ? add(V16::load(y), value) : value).store(y);
  else if (n > 0)
    (accumulate ? add(V16::load_n(y, n), value) : value).store_n(y, n);
}

// Index r of 16 begins at bit r * bits, so four of them lie within 8 bytes. Eight at a time: 16
// bytes for each half of a register, of which a shuffle gives every lane its four, then a shift.
class IndexReader {
 public:
  IndexReader(int bits, int dim) : bits_(bits) {
    for (int r = 0; r < 16; ++r) {
      const int bit = r * bits - r / 4 * 4 * bits / 8 * 8;  // from the first byte that is loaded
      for (int i = 0; i < 4; ++i) bytes_[4 * r + i] = static_cast<std::uint8_t>(bit / 8 + i);
      shifts_[r] = static_cast<std::uint32_t>(bit % 8);
    }
    mask_ = (1u << bits) - 1;
    dim_ = static_cast<std::uint32_t>(dim);
  }
  // 64 indices times dim.
  HWY_INLINE void read(const std::byte* codes, std::uint32_t* out) const {
    const hn::Full128<std::uint8_t> d16;
    const hn::Full256<std::uint8_t> d32;
    const hn::Full256<std::uint32_t> d;
    const auto* p = reinterpret_cast<const std::uint8_t*>(codes);
    for (int unit = 0; unit < 4; ++unit, p += 2 * bits_, out += 16)
      for (int half = 0; half < 2; ++half) {
        const auto from = hn::Combine(d32, hn::LoadU(d16, p + (2 * half + 1) * 4 * bits_ / 8),
                                      hn::LoadU(d16, p + 2 * half * 4 * bits_ / 8));
        const auto four = hn::TableLookupBytes(from, hn::Load(d32, bytes_ + 32 * half));
        const auto index = hn::And(hn::Shr(hn::BitCast(d, four), hn::Load(d, shifts_ + 8 * half)),
                                   hn::Set(d, mask_));
        hn::StoreU(hn::Mul(index, hn::Set(d, dim_)), d, out + 8 * half);
      }
  }

 private:
  int bits_;
  alignas(32) std::uint8_t bytes_[64];
  alignas(32) std::uint32_t shifts_[16];
  std::uint32_t mask_, dim_;
};

// Four columns, from `codewords` on, of the rows whose codewords begin at offset[0 … kLanes).
template <class R>
HWY_INLINE auto four_values(const float* codewords, const std::uint32_t* offset) {
  const hn::Full128<float> d4;
  const hn::Full256<float> d8;
  if constexpr (R::kLanes == 8) {
    return hn::Combine(d8, hn::LoadU(d4, codewords + offset[4]),
                       hn::LoadU(d4, codewords + offset[0]));
  } else {
    return hn::Combine(typename R::D(),
                       hn::Combine(d8, hn::LoadU(d4, codewords + offset[12]),
                                   hn::LoadU(d4, codewords + offset[8])),
                       hn::Combine(d8, hn::LoadU(d4, codewords + offset[4]),
                                   hn::LoadU(d4, codewords + offset[0])));
  }
}
template <class R>
HWY_INLINE void gather_columns(const float* codewords, std::size_t book_size, int n_books,
                               const std::uint32_t* offset, R (&w)[4]) {
  const typename R::D d;
  const hn::Repartition<double, typename R::D> d64;
  hn::Vec<typename R::D> row[4];
#pragma GCC unroll 4
  for (int e = 0; e < 4; ++e) row[e] = four_values<R>(codewords, offset + e);
  for (int m = 1; m < n_books; ++m)
#pragma GCC unroll 4
    for (int e = 0; e < 4; ++e)
      row[e] = hn::Add(row[e], four_values<R>(codewords + book_size * static_cast<std::size_t>(m),
                                              offset + 64 * m + e));
  const auto lower01 = hn::BitCast(d64, hn::InterleaveLower(d, row[0], row[1])),
             upper01 = hn::BitCast(d64, hn::InterleaveUpper(d, row[0], row[1])),
             lower23 = hn::BitCast(d64, hn::InterleaveLower(d, row[2], row[3])),
             upper23 = hn::BitCast(d64, hn::InterleaveUpper(d, row[2], row[3]));
  w[0].v = hn::BitCast(d, hn::InterleaveLower(d64, lower01, lower23));
  w[1].v = hn::BitCast(d, hn::InterleaveUpper(d64, lower01, lower23));
  w[2].v = hn::BitCast(d, hn::InterleaveLower(d64, upper01, upper23));
  w[3].v = hn::BitCast(d, hn::InterleaveUpper(d64, upper01, upper23));
}

// kWidth columns of 16 rows.
template <int kWidth>
HWY_INLINE void decode(const float* codewords, std::size_t book_size, int n_books,
                       const std::uint32_t* offset, V16 (&w)[kWidth]) {
  if constexpr (kWidth == 1) {
    alignas(64) float values[16];
    for (int r = 0; r < 16; ++r) {
      float sum = codewords[offset[r]];
      for (int m = 1; m < n_books; ++m)
        sum += codewords[book_size * static_cast<std::size_t>(m) + offset[64 * m + r]];
      values[r] = sum;
    }
    w[0] = V16::load(values);
  } else {
#if HWY_TARGET == HWY_AVX3
    gather_columns(codewords, book_size, n_books, offset, w);
#else
    V8 lo[4], hi[4];
    gather_columns(codewords, book_size, n_books, offset, lo);
    gather_columns(codewords, book_size, n_books, offset + 8, hi);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) w[c] = {lo[c], hi[c]};
#endif
  }
}

constexpr int kCodewordTokens = 32;  // their sums, 4 × 64 bytes each, stay in the first-level cache

// One block of 64 rows for n (<= kCodewordTokens) tokens; kOne: n is 1, its sums in registers.
template <int kWidth, bool kOne>
HWY_NOINLINE void multiply_codewords(const VqProduct& product, const float* const* x, int n,
                                     float* const* out, bool accumulate, int block) {
  constexpr int kMaxTokens = kOne ? 1 : kCodewordTokens;
  // Indices that are unpacked together: of 16 sub-vectors, of fewer where there are many books.
  constexpr int kChunk = 16, kVectors = 64;
  static_assert(PackedVq::kMaxBooks <= kVectors);
  const PackedVq& m = *product.w;
  const VqMatrix& s = m.shape();
  const IndexReader reader(s.index_bits, s.dim);
  const int n_tokens = kOne ? 1 : n;
  const std::size_t book_size = static_cast<std::size_t>(s.n_codes) * s.dim;
  const int chunk = std::min(kChunk, kVectors / s.n_books);
  alignas(64) std::uint32_t offsets[kVectors * 64];
  V16 y[kMaxTokens][4], sum[kMaxTokens][4];
  for (int t = 0; t < n_tokens; ++t)
    for (int r = 0; r < 4; ++r) y[t][r] = V16::zero();

  for (int g = 0; g < s.n_groups(); ++g) {
    const std::byte* tile = m.tile(g, block);
    const int n_sub = m.n_subvectors(g);
    for (int t = 0; t < n_tokens; ++t)
      for (int r = 0; r < 4; ++r) sum[t][r] = V16::zero();
    for (int j0 = 0; j0 < n_sub; j0 += chunk) {
      const int n_here = std::min(chunk, n_sub - j0);
      const std::byte* codes = tile + static_cast<std::size_t>(j0) * s.n_books * m.indices_bytes();
      for (int i = 0; i < n_here * s.n_books; ++i)
        reader.read(codes + m.indices_bytes() * i, offsets + 64 * i);
      for (int j = 0; j < n_here; ++j) {
        const std::uint32_t* offset = offsets + 64 * s.n_books * j;
        const int col = g * s.group + (j0 + j) * s.dim;
        for (int c = 0; c < s.dim; c += kWidth)
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) {
            V16 w[kWidth];
            decode<kWidth>(s.codebook + c, book_size, s.n_books, offset + 16 * r, w);
            for (int t = 0; t < n_tokens; ++t) {
              const float* v = x[t] + col + c;
#pragma GCC unroll 4
              for (int i = 0; i < kWidth; ++i) sum[t][r] = fma(w[i], V16::set(v[i]), sum[t][r]);
            }
          }
      }
    }
    const std::byte* scales = tile + m.scales_offset(g);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const V16 scale = load_scales(scales + 32 * r);
      for (int t = 0; t < n_tokens; ++t) y[t][r] = fma(scale, sum[t][r], y[t][r]);
    }
  }
  for (int t = 0; t < n_tokens; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const int row = block * PackedVq::kBlockRows + 16 * r;
      store_rows(out[t] + row, m.n_rows() - row, y[t][r], accumulate);
    }
}

void project_codewords(const VqProduct& product, const VqProjectArgs& a) {
  for (int block = product.first_block; block < product.last_block; ++block)
    for (int t = 0; t < a.n_tokens; t += kCodewordTokens) {
      const int n = std::min(kCodewordTokens, a.n_tokens - t);
      const bool by_four = product.w->shape().dim % 4 == 0;
      (by_four ? n == 1 ? multiply_codewords<4, true> : multiply_codewords<4, false>
       : n == 1
           ? multiply_codewords<1, true>
           : multiply_codewords<1, false>)(product, a.x + t, n, product.y + t, a.accumulate, block);
    }
}

}  // namespace
}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD
#endif  // include guard
