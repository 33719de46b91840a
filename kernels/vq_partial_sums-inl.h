// Products by partial sums. Include after foreach_target.h.

#if defined(ASSAY_KERNELS_VQ_PARTIAL_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASSAY_KERNELS_VQ_PARTIAL_SUMS_INL_H_
#undef ASSAY_KERNELS_VQ_PARTIAL_SUMS_INL_H_
#else
#define ASSAY_KERNELS_VQ_PARTIAL_SUMS_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/simd-inl.h"
#include "kernels/vq_codewords-inl.h"
#include "kernels/vq_partial_sums.h"
#include "kernels/vq_vbmi.h"

#if ASSAY_CPU_SIMD
HWY_BEFORE_NAMESPACE();
namespace assay::kernels::HWY_NAMESPACE {
namespace {

// table[i] = codeword_i · x, a chain of dim multiply-adds from zero.
HWY_NOINLINE void build_table(const float* codebook, int dim, const float* x, float* table) {
  constexpr int kAtOnce = HWY_TARGET == HWY_AVX3 ? 8 : 4;  // chains enough to hide the latency
  for (int i = 0; i < VqScratch::kCodes; i += 16 * kAtOnce) {
    V16 sum[kAtOnce];
#pragma GCC unroll 8
    for (int k = 0; k < kAtOnce; ++k) sum[k] = V16::zero();
    for (int c = 0; c < dim; ++c) {
      const V16 v = V16::set(x[c]);
#pragma GCC unroll 8
      for (int k = 0; k < kAtOnce; ++k)
        sum[k] = fma(V16::load(codebook + VqScratch::kCodes * c + i + 16 * k), v, sum[k]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kAtOnce; ++k) sum[k].store(table + i + 16 * k);
  }
}

// The look-ups of the lowest two bytes, which are then shifted out. The empty asm keeps the
// compiler from joining scalars to vectors, which takes twice as many operations.
HWY_INLINE void add_two(const float* table, std::uint64_t& index, float& s0, float& s1) {
  s0 += table[index & 255];
  s1 += table[index >> 8 & 255];
  index >>= 16;
  asm("" : "+x"(s0), "+x"(s1), "+r"(index));
}

// Sums of the rows of eight bytes of codes: four rows from `lower` on and four from 16 further
// (PackedVq::byte_of_row). This one adds with a load for each row.
struct LoadedRows {
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;

  HWY_INLINE void begin(const float* lower, bool add) {
    if (!add) return;
    const float* upper = lower + 16;
    s0 = lower[0], s1 = lower[1], s2 = lower[2], s3 = lower[3];
    s4 = upper[0], s5 = upper[1], s6 = upper[2], s7 = upper[3];
  }
  HWY_INLINE void add_from(const float* table, const std::byte* codes) {
    std::uint64_t index;
    std::memcpy(&index, codes, 8);
    add_two(table, index, s0, s1);
    add_two(table, index, s2, s3);
    add_two(table, index, s4, s5);
    add_two(table, index, s6, s7);
  }
  HWY_INLINE void end(float* lower) const {
    float* upper = lower + 16;
    lower[0] = s0, lower[1] = s1, lower[2] = s2, lower[3] = s3;
    upper[0] = s4, upper[1] = s5, upper[2] = s6, upper[3] = s7;
  }
};
// And this one gathers them.
struct GatheredRows {
  V8 sum;

  HWY_INLINE void begin(const float* lower, bool add) {
    const hn::Full128<float> d4;
    sum = add ? V8{hn::Combine(V8::D(), hn::LoadU(d4, lower + 16), hn::LoadU(d4, lower))}
              : V8::zero();
  }
  HWY_INLINE void add_from(const float* table, const std::byte* codes) {
    const hn::Rebind<std::uint8_t, V8::D> d;
    const auto index =
        hn::PromoteTo(V8::DI(), hn::LoadU(d, reinterpret_cast<const std::uint8_t*>(codes)));
    sum = add(sum, V8{hn::GatherIndex(V8::D(), table, index)});
  }
  HWY_INLINE void end(float* lower) const {
    const hn::Full128<float> d4;
    hn::StoreU(hn::LowerHalf(d4, sum.v), d4, lower);
    hn::StoreU(hn::UpperHalf(d4, sum.v), d4, lower + 16);
  }
};

// The sums of 64 rows. Three gathers beside eight loads: they are bound by different ports.
template <int kGathers>
HWY_INLINE void sum_block(const VqLookUp& a, const std::byte* codes, float* sums) {
  for (int first = 0; first < PackedVq::kBlockRows; first += 8 * (kGathers + 1)) {
    const auto lower = [&](int k) { return sums + PackedVq::byte_of_row(first + 8 * k); };
    LoadedRows loaded;
    std::array<GatheredRows, kGathers> gathered;
    loaded.begin(lower(0), a.add);
    for (int k = 0; k < kGathers; ++k) gathered[k].begin(lower(k + 1), a.add);
    const std::byte* code = codes + first;
    const float* table = a.tables;
    for (int j = 0; j < a.n_tables; ++j, table += VqScratch::kCodes, code += 64) {
#pragma GCC unroll 4
      for (int k = 0; k < kGathers; ++k) gathered[k].add_from(table, code + 8 * (k + 1));
      loaded.add_from(table, code);
    }
    loaded.end(lower(0));
    for (int k = 0; k < kGathers; ++k) gathered[k].end(lower(k + 1));
  }
}

// Without VBMI.
template <int kGathers>
HWY_NOINLINE void look_up(const VqLookUp& a) {
  for (int b = 0; b < a.n_blocks; ++b) {
    const std::byte* codes = a.codes + a.block_bytes * b;
    float* sums = a.sums + PackedVq::kBlockRows * b;
    const std::byte* ahead = b + 1 < a.n_blocks ? codes + a.block_bytes : a.next;
    for (int j = 0; j < a.n_tables; ++j) __builtin_prefetch(ahead + 64 * j, 0, 3);
    sum_block<kGathers>(a, codes, sums);
    if (a.scales == nullptr) continue;
    for (int k = 0; k < 4; ++k) {
      const V16 scale = load_scales(a.scales + a.block_bytes * b + 32 * k);
      float* y = a.y + PackedVq::kBlockRows * b + 16 * k;
      fma(scale, V16::load(sums + 16 * k), V16::load(y)).store(y);
    }
  }
}

// Blocks of one product, and where their sums lie in the scratch.
struct Piece {
  const VqProduct* product;
  int first_block, n_blocks, at;
};
constexpr int kMaxPieces = 64;
constexpr int kTileBlocks = 32;  // whose codes stay near while tokens pass

struct Pass {
  const VqProjectArgs* args;
  VqFetch fetch;
  const PackedVq* like;  // any of the matrices
  VqScratch* scratch;
  int first_token, n_tokens;
  Piece pieces[kMaxPieces];
  int n_pieces, n_blocks;
};

HWY_INLINE std::size_t sums_at(const Pass& p, int token, int block) {
  return static_cast<std::size_t>(PackedVq::kBlockRows) *
         static_cast<std::size_t>(p.n_blocks * token + block);
}

// The codes that a turn reads after the tiles from block b of piece i on.
const std::byte* codes_after(const Pass& p, int g, int turn, int i, int b) {
  const bool piece_ends = b + kTileBlocks >= p.pieces[i].n_blocks;
  if (piece_ends && i + 1 == p.n_pieces) {
    i = -1;
    if (++turn == p.like->n_turns(g)) {
      turn = 0;
      g = g + 1 == p.like->shape().n_groups() ? 0 : g + 1;
    }
  }
  const Piece& next = p.pieces[piece_ends ? i + 1 : i];
  return next.product->w->turn(g, turn, next.first_block + (piece_ends ? 0 : b + kTileBlocks));
}

void look_up_by(VqFetch fetch, const VqLookUp& look) {
  if (fetch == VqFetch::kVbmi)
    vbmi_look_up(look);
  else if (fetch == VqFetch::kGather)
    look_up<3>(look);
  else
    look_up<0>(look);
}

// A turn of group g: the tables of its sub-vectors, then their sums for every row.
void run_turn(const Pass& p, int g, int turn) {
  VqScratch& s = *p.scratch;
  const VqMatrix& shape = p.like->shape();
  const int n_tables = p.like->n_tables(g, turn);
  const bool last = turn + 1 == p.like->n_turns(g);
  const int first_col = g * shape.group + turn * PackedVq::kTurn * shape.dim;
  for (int t = 0; t < p.n_tokens; ++t)
    for (int j = 0; j < n_tables; ++j) {
      float* table = s.tables[t] + VqScratch::kCodes * j;
      build_table(s.codebook, shape.dim, p.args->x[p.first_token + t] + first_col + j * shape.dim,
                  table);
      if (p.fetch == VqFetch::kVbmi) vbmi_split_planes(table);
    }
  for (int i = 0; i < p.n_pieces; ++i) {
    const Piece& piece = p.pieces[i];
    const PackedVq& m = *piece.product->w;
    for (int b = 0; b < piece.n_blocks; b += kTileBlocks) {
      const int n_blocks = std::min(kTileBlocks, piece.n_blocks - b);
      const std::byte* codes = m.turn(g, turn, piece.first_block + b);
      for (int t = 0; t < p.n_tokens; ++t) {
        const std::size_t at = sums_at(p, t, piece.at + b);
        look_up_by(p.fetch, {.codes = codes,
                             .block_bytes = m.turn_bytes(g, turn),
                             .n_blocks = n_blocks,
                             .tables = s.tables[t],
                             .n_tables = n_tables,
                             .sums = s.sums + at,
                             .add = turn != 0,
                             .scales = last ? codes + m.indices_bytes() * n_tables : nullptr,
                             .y = s.y + at,
                             .next = codes_after(p, g, turn, i, b)});
      }
    }
  }
}

void run_pass(const Pass& p) {
  VqScratch& s = *p.scratch;
  std::memset(s.y, 0, sums_at(p, p.n_tokens, 0) * sizeof(float));
  for (int g = 0; g < p.like->shape().n_groups(); ++g)
    for (int turn = 0; turn < p.like->n_turns(g); ++turn) run_turn(p, g, turn);
  for (int i = 0; i < p.n_pieces; ++i) {
    const Piece& piece = p.pieces[i];
    for (int t = 0; t < p.n_tokens; ++t)
      for (int k = 0; k < 4 * piece.n_blocks; ++k) {
        const int row = piece.first_block * PackedVq::kBlockRows + 16 * k;
        store_rows(piece.product->y[p.first_token + t] + row, piece.product->w->n_rows() - row,
                   V16::load(s.y + sums_at(p, t, piece.at) + 16 * k), p.args->accumulate);
      }
  }
}

// `first` and every product of the call that shares its tables.
void project_partial_sums(const VqProduct& first, const VqProjectArgs& a) {
  Pass p{.args = &a,
         .fetch = a.fetch,
         .like = first.w,
         .scratch = reinterpret_cast<VqScratch*>(a.scratch)};
  const VqMatrix& shape = first.w->shape();
  for (int i = 0; i < VqScratch::kCodes; ++i)
    for (int c = 0; c < shape.dim; ++c)
      p.scratch->codebook[VqScratch::kCodes * c + i] = shape.codebook[shape.dim * i + c];

  for (; p.first_token < a.n_tokens; p.first_token += p.n_tokens) {
    p.n_tokens = std::min(VqScratch::kTokens, a.n_tokens - p.first_token);
    const int room = VqScratch::kBlocks / p.n_tokens;
    const auto flush = [&] {
      if (p.n_pieces != 0) run_pass(p);
      p.n_pieces = p.n_blocks = 0;
    };
    for (const VqProduct& product : a.products) {
      if (!share_tables(first, product)) continue;
      for (int b = product.first_block; b < product.last_block;) {
        if (p.n_pieces == kMaxPieces || p.n_blocks == room) flush();
        const int n = std::min(product.last_block - b, room - p.n_blocks);
        p.pieces[p.n_pieces++] = {&product, b, n, p.n_blocks};
        p.n_blocks += n;
        b += n;
      }
    }
    flush();
  }
}

}  // namespace
}  // namespace assay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ASSAY_CPU_SIMD
#endif  // include guard
