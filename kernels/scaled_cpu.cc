#include "kernels/packed_scaled.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/scaled_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/simd-inl.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

using Kind = ScaledMatrix::Kind;
#if HWY_TARGET == HWY_AVX3
using R = V16;
#else
using R = V8;
#endif
constexpr int kVectors = PackedScaled::kBlockRows / R::kLanes;
constexpr int kTokens = 32;   // whose sums stay in the first-level cache
constexpr int kColumns = 16;  // decoded once for all of them

HWY_INLINE R from_bytes(const std::byte* p) {
  const hn::Rebind<std::uint8_t, R::D> d;
  const auto wide = hn::PromoteTo(R::DI(), hn::LoadU(d, reinterpret_cast<const std::uint8_t*>(p)));
  return {hn::ConvertTo(R::D(), wide)};
}

HWY_INLINE R from_halves(const std::byte* p) {
  const hn::Rebind<hwy::float16_t, R::D> d;
  return {hn::PromoteTo(R::D(), hn::LoadU(d, reinterpret_cast<const hwy::float16_t*>(p)))};
}

// Vector v of a column of 64 4-bit values.
HWY_INLINE R from_nibbles(const std::byte* column, int v) {
  const hn::Rebind<std::uint8_t, R::D> d;
  const auto* p = reinterpret_cast<const std::uint8_t*>(column) + v % (kVectors / 2) * R::kLanes;
  const auto wide = hn::PromoteTo(R::DI(), hn::LoadU(d, p));
  const auto q = v < kVectors / 2 ? hn::And(wide, hn::Set(R::DI(), 15)) : hn::ShiftRight<4>(wide);
  return {hn::ConvertTo(R::D(), q)};
}

// E4M3 is binary16 with a shorter exponent: the same bits, moved, are the value times 2^-8,
// subnormals included.
constexpr float kE4m3Unit = 256;
HWY_INLINE R from_e4m3(const std::byte* p) {
  const hn::Rebind<std::uint8_t, R::D> d8;
  const hn::Rebind<std::uint16_t, R::D> d16;
  const hn::Rebind<hwy::float16_t, R::D> half;
  const auto code = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(p)));
  const auto magnitude = hn::And(code, hn::Set(d16, 0x7F));
  const auto sign = hn::ShiftLeft<8>(hn::Sub(code, magnitude));
  const auto nan = hn::IfThenElseZero(hn::Eq(magnitude, hn::Set(d16, 0x7F)), hn::Set(d16, 0x7E00));
  const auto bits = hn::Or(hn::Or(hn::ShiftLeft<7>(magnitude), sign), nan);
  return {hn::PromoteTo(R::D(), hn::BitCast(half, bits))};
}

// One tile's values and scales, for any vector of its 64 rows.
template <Kind kKind>
struct Tile {
  Tile(const PackedScaled& m, int group, int block)
      : values(m.tile(group, block)), scales(values + m.scales_offset(group)) {
    if constexpr (kKind != Kind::kFp8E4m3)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        zero[v] = add(from_bytes(values + m.zeros_offset(group) + R::kLanes * v), R::set(1));
  }
  HWY_INLINE R value(int column, int v) const {
    if constexpr (kKind == Kind::kGptq4) return sub(from_nibbles(values + 32 * column, v), zero[v]);
    const std::byte* at = values + 64 * column + R::kLanes * v;
    if constexpr (kKind == Kind::kGptq8) return sub(from_bytes(at), zero[v]);
    return from_e4m3(at);
  }
  // y + scale * sum
  HWY_INLINE R scaled(int v, R sum, R y) const {
    if constexpr (kKind == Kind::kFp8E4m3)
      return fma(R::load(reinterpret_cast<const float*>(scales) + R::kLanes * v),
                 mul(sum, R::set(kE4m3Unit)), y);
    return fma(from_halves(scales + 2 * R::kLanes * v), sum, y);
  }

  const std::byte *values, *scales;
  R zero[kVectors];
};

HWY_INLINE void store_rows(float* y, int n, R value, bool accumulate) {
  if (n >= R::kLanes)
    (accumulate ? add(R::load(y), value) : value).store(y);
  else if (n > 0)
    (accumulate ? add(R::load_n(y, n), value) : value).store_n(y, n);
}

template <Kind kKind>
HWY_NOINLINE void multiply_one(const PackedScaled& m, int block, const float* x, float* out,
                               bool accumulate) {
  R y[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) y[v] = R::zero();
  for (int g = 0; g < m.n_groups(); ++g) {
    const Tile<kKind> tile(m, g, block);
    R sum[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] = R::zero();
    const float* inputs = x + m.first_col(g);
    const int n_cols = m.n_cols(g);
    for (int c = 0; c < n_cols; ++c) {
      const R input = R::set(inputs[c]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[v] = fma(tile.value(c, v), input, sum[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) y[v] = tile.scaled(v, sum[v], y[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const int row = block * PackedScaled::kBlockRows + R::kLanes * v;
    store_rows(out + row, m.n_rows() - row, y[v], accumulate);
  }
}

// sum += weights (n_cols, 64) times x.
HWY_NOINLINE void add_columns(const float* weights, int n_cols, const float* x, float* sums) {
  R sum[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sum[v] = R::load(sums + R::kLanes * v);
  for (int c = 0; c < n_cols; ++c, weights += PackedScaled::kBlockRows) {
    const R input = R::set(x[c]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      sum[v] = fma(R::load(weights + R::kLanes * v), input, sum[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sum[v].store(sums + R::kLanes * v);
}

template <Kind kKind>
HWY_NOINLINE void multiply_many(const PackedScaled& m, int block, const float* const* x, int n,
                                float* const* out, bool accumulate) {
  constexpr int kRows = PackedScaled::kBlockRows;
  alignas(64) float weights[kColumns * kRows], sums[kTokens][kRows], y[kTokens][kRows];
  for (int t = 0; t < n; ++t) std::fill_n(y[t], kRows, 0.0f);
  for (int g = 0; g < m.n_groups(); ++g) {
    const Tile<kKind> tile(m, g, block);
    for (int t = 0; t < n; ++t) std::fill_n(sums[t], kRows, 0.0f);
    for (int c0 = 0; c0 < m.n_cols(g); c0 += kColumns) {
      const int n_cols = std::min(kColumns, m.n_cols(g) - c0);
      for (int c = 0; c < n_cols; ++c)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v)
          tile.value(c0 + c, v).store(weights + kRows * c + R::kLanes * v);
      for (int t = 0; t < n; ++t) add_columns(weights, n_cols, x[t] + m.first_col(g) + c0, sums[t]);
    }
    for (int t = 0; t < n; ++t)
      for (int v = 0; v < kVectors; ++v) {
        float* at = y[t] + R::kLanes * v;
        tile.scaled(v, R::load(sums[t] + R::kLanes * v), R::load(at)).store(at);
      }
  }
  for (int t = 0; t < n; ++t)
    for (int v = 0; v < kVectors; ++v) {
      const int row = block * kRows + R::kLanes * v;
      store_rows(out[t] + row, m.n_rows() - row, R::load(y[t] + R::kLanes * v), accumulate);
    }
}

template <Kind kKind>
void all_blocks(const ScaledProduct& product, const ScaledProjectArgs& a) {
  for (int block = product.first_block; block < product.last_block; ++block)
    for (int t = 0; t < a.n_tokens; t += kTokens) {
      const int n = std::min(kTokens, a.n_tokens - t);
      if (n == 1)
        multiply_one<kKind>(*product.w, block, a.x[t], product.y[t], a.accumulate);
      else
        multiply_many<kKind>(*product.w, block, a.x + t, n, product.y + t, a.accumulate);
    }
}

}  // namespace

void scaled_project(const ScaledProjectArgs& a) {
  for (const ScaledProduct& product : a.products) switch (product.w->kind()) {
      case Kind::kGptq4:
        all_blocks<Kind::kGptq4>(product, a);
        break;
      case Kind::kGptq8:
        all_blocks<Kind::kGptq8>(product, a);
        break;
      case Kind::kFp8E4m3:
        all_blocks<Kind::kFp8E4m3>(product, a);
        break;
    }
}

}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD

#if HWY_ONCE
namespace assay::kernels {

void scaled_project_cpu(CpuTarget target, const ScaledProjectArgs& args) {
  ASSAY_CPU_CALL(target, scaled_project, args);
}

}  // namespace assay::kernels
#endif
