#include "kernels/vq_vbmi.h"

#include <immintrin.h>

#include <array>
#include <cstdint>

// g++ 12 takes the undefined vectors of its own AVX-512 header for mistakes (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define ASSAY_VBMI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))

namespace assay::kernels {
namespace {

// Bytes 2p and 2p + 1 of 32 floats in two registers: first all 2p, then all 2p + 1.
template <int p>
constexpr std::array<std::uint8_t, 64> kTwoPlanes = [] {
  std::array<std::uint8_t, 64> from{};
  for (int i = 0; i < 32; ++i) {
    from[i] = static_cast<std::uint8_t>(4 * i + 2 * p);
    from[32 + i] = static_cast<std::uint8_t>(4 * i + 2 * p + 1);
  }
  return from;
}();

ASSAY_VBMI inline void prefetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

template <int kBlocks>
ASSAY_VBMI void look_up(const VqLookUp& a, int block) {
  const std::byte* codes = a.codes + a.block_bytes * block;
  const std::byte* ahead = block + kBlocks < a.n_blocks ? codes + a.block_bytes * kBlocks : a.next;
  float* sums = a.sums + 64 * block;
  __m512 sum[kBlocks][4];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      sum[b][i] = a.add ? _mm512_loadu_ps(sums + 64 * b + 16 * i) : _mm512_setzero_ps();

  for (int j = 0; j < a.n_tables; ++j) {
    __m512i index[kBlocks], plane[kBlocks][4];
    __mmask64 upper[kBlocks];  // of the table: an index of 128 and more
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      index[b] = _mm512_loadu_si512(codes + a.block_bytes * b + 64 * j);
      // A line is used up in a dozen cycles: without this too few are under way.
      prefetch(ahead + a.block_bytes * b + 64 * j);
      upper[b] = _mm512_movepi8_mask(index[b]);
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const float* table = a.tables + 256 * j + 64 * p;
      const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 16),
                    t2 = _mm512_loadu_si512(table + 32), t3 = _mm512_loadu_si512(table + 48);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b)
        plane[b][p] = _mm512_mask_blend_epi8(upper[b], _mm512_permutex2var_epi8(t0, index[b], t1),
                                             _mm512_permutex2var_epi8(t2, index[b], t3));
    }
    // Within each 128 bits: bytes to pairs, pairs to floats. PackedVq::byte_of_row makes these rows
    // 0 … 15, 16 … 31, and so on.
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const __m512i a0 = _mm512_unpacklo_epi8(plane[b][0], plane[b][1]),
                    a1 = _mm512_unpackhi_epi8(plane[b][0], plane[b][1]),
                    b0 = _mm512_unpacklo_epi8(plane[b][2], plane[b][3]),
                    b1 = _mm512_unpackhi_epi8(plane[b][2], plane[b][3]);
      const __m512i value[] = {_mm512_unpacklo_epi16(a0, b0), _mm512_unpackhi_epi16(a0, b0),
                               _mm512_unpacklo_epi16(a1, b1), _mm512_unpackhi_epi16(a1, b1)};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        sum[b][i] = _mm512_add_ps(sum[b][i], _mm512_castsi512_ps(value[i]));
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (a.scales == nullptr) {
        _mm512_storeu_ps(sums + 64 * b + 16 * i, sum[b][i]);
        continue;
      }
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(a.scales + a.block_bytes * (block + b) + 32 * i)));
      float* y = a.y + 64 * (block + b) + 16 * i;
      _mm512_storeu_ps(y, _mm512_fmadd_ps(scale, sum[b][i], _mm512_loadu_ps(y)));
    }
}

}  // namespace

bool have_vbmi() {
  return __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512bw") != 0;
}

ASSAY_VBMI void vbmi_split_planes(float* table) {
  const __m512i planes01 = _mm512_loadu_si512(kTwoPlanes<0>.data()),
                planes23 = _mm512_loadu_si512(kTwoPlanes<1>.data());
  __m512i out[4][4];  // [plane][64 entries]
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const float* from = table + 64 * i;
    const __m512i v0 = _mm512_loadu_si512(from), v1 = _mm512_loadu_si512(from + 16),
                  v2 = _mm512_loadu_si512(from + 32), v3 = _mm512_loadu_si512(from + 48);
    const __m512i a = _mm512_permutex2var_epi8(v0, planes01, v1),
                  b = _mm512_permutex2var_epi8(v2, planes01, v3),
                  c = _mm512_permutex2var_epi8(v0, planes23, v1),
                  d = _mm512_permutex2var_epi8(v2, planes23, v3);
    out[0][i] = _mm512_shuffle_i64x2(a, b, 0x44);
    out[1][i] = _mm512_shuffle_i64x2(a, b, 0xEE);
    out[2][i] = _mm512_shuffle_i64x2(c, d, 0x44);
    out[3][i] = _mm512_shuffle_i64x2(c, d, 0xEE);
  }
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(table + 64 * p + 16 * i, out[p][i]);
}

void vbmi_look_up(const VqLookUp& args) {
  int block = 0;
  for (; block + 2 <= args.n_blocks; block += 2) look_up<2>(args, block);
  if (block < args.n_blocks) look_up<1>(args, block);
}

}  // namespace assay::kernels
