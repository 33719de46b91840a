#include "kernels/vq_units.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "kernels/vq_pack.h"
#include "kernels/vq_sums.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kKb = 1024;
constexpr std::size_t kMostTableBytes = 136 * kKb;
constexpr std::size_t kStaticBytes = 4 * kKb;  // barriers and what else is not asked for by launch
constexpr int kMostWarps = 16, kMostStages = 6, kLeastStages = 2;

constexpr int kDimOf[] = {8, 4, 8, 4};
constexpr int kCodesOf[] = {256, 256, 4096, 4096};

int table_of(const VqMatrix& w) { return UnitLaunch::table_of(w.dim, w.index_bits); }

std::size_t small_bytes(const UnitLaunch& l) {
  const bool any = l.table[UnitLaunch::k8x256].copies > 0 || l.table[UnitLaunch::k4x256].copies > 0;
  return !any ? 0 : l.stride == 256 ? 64 * kKb : 16 * kKb;
}
std::size_t large_bytes(const UnitLaunch& l, int which) {
  const std::size_t values = std::size_t{4096} * (which == UnitLaunch::k8x4096 ? 8 : 4);
  return static_cast<std::size_t>(l.table[which].copies) * 2 * values;
}

// The launch with its ring and sums, or nothing where less than kLeastStages fit beside the tables.
bool fit(UnitLaunch& l, int lines, std::size_t least_sums, std::size_t shared_bytes) {
  l.table_bytes = l.table_at(UnitLaunch::k4x4096) + large_bytes(l, UnitLaunch::k4x4096);
  l.job_bytes = 0;
  for (int t = 0; t < UnitLaunch::kTables; ++t) {
    if (l.table[t].copies == 0) continue;
    const VqMatrix like = {.dim = kDimOf[t], .index_bits = kCodesOf[t] == 256 ? 8 : 12};
    l.job_bytes = std::max(l.job_bytes, l.parts * l.form(like).bytes());
  }
  // For sums what a round of GLM-5.2's experts takes, where there is that much.
  const std::size_t sums = std::max(least_sums, (shared_bytes > 160 * kKb ? 14 : 6) * kKb);
  const auto stage = static_cast<std::size_t>(lines) * static_cast<std::size_t>(l.job_bytes);
  if (shared_bytes < kStaticBytes + l.table_bytes + sums + kLeastStages * stage) return false;
  const std::size_t room = shared_bytes - kStaticBytes - l.table_bytes;
  l.lines = lines;
  l.stages = static_cast<int>(std::min<std::size_t>(kMostStages, (room - sums) / stage));
  l.sum_bytes = room - static_cast<std::size_t>(l.stages) * stage;
  return true;
}

// With tables and scales known.
bool fit(UnitLaunch& l, bool down, int top_k, std::size_t shared_bytes) {
  const int most = down ? std::min(kMostWarps / l.parts, top_k) : kMostWarps / l.parts;
  // A tile's sums: of gate and up, or of all experts.
  const auto least_sums =
      static_cast<std::size_t>((down ? top_k : 2) * l.parts * kVqUnitRows) * sizeof(float);
  for (const int stride : {256, 32}) {
    l.stride = stride;
    for (int lines = most; lines > 0; lines /= 2)
      if (fit(l, lines, least_sums, shared_bytes)) return true;
  }
  return false;
}

// More copies of codebooks of 4096, those of most weights first, while everything else fits as it
// did.
void add_copies(UnitLaunch& l, bool down, int top_k, bool eights_first, std::size_t shared_bytes) {
  if (l.table[UnitLaunch::k8x256].copies > 0 || l.table[UnitLaunch::k4x256].copies > 0) return;
  const auto more = [&](int which, int most) {
    while (l.table[which].copies > 0 && l.table[which].copies < most) {
      UnitLaunch next = l;
      next.table[which].copies *= 2;
      if (!fit(next, down, top_k, shared_bytes) || next.lines < l.lines ||
          next.table_bytes > kMostTableBytes)
        return;
      l = next;
    }
  };
  if (eights_first) more(UnitLaunch::k8x4096, 2);
  more(UnitLaunch::k4x4096, 4);
  more(UnitLaunch::k8x4096, 2);
}

// Of gate and up, or of down; false where they cannot be in units.
bool plan_launch(std::span<const VqMatrix> experts, bool down, int top_k, std::size_t shared_bytes,
                 UnitLaunch& l) {
  std::int64_t weights[UnitLaunch::kTables] = {};
  bool narrow_scales = false;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if ((i % 3 == 2) != down) continue;
    const VqMatrix& w = experts[i];
    if (!may_be_in_units(w)) return false;
    const int which = table_of(w);
    UnitLaunch::Table& t = l.table[which];
    if (t.copies > 0 && (t.codebook != w.codebook || t.n_codes != w.n_codes)) return false;
    t = {w.codebook, w.n_codes, 1};
    weights[which] += std::int64_t{w.n_rows} * w.n_cols;
    if (w.group % 128 != 0 && w.group < w.n_cols) narrow_scales = true;
    l.parts = unit_parts(w.n_cols);
  }
  l.scales = narrow_scales ? 8 : 4;
  if (l.parts == 0 || !fit(l, down, top_k, shared_bytes)) return false;
  add_copies(l, down, top_k, weights[UnitLaunch::k8x4096] > weights[UnitLaunch::k4x4096],
             shared_bytes);
  return true;
}

// Codes of a row, one after the other.
void read_codes(const VqMatrix& w, int row, std::uint16_t* out) {
  const auto words = static_cast<std::size_t>(w.row_words());
  const std::byte* from = w.codes + 4 * words * static_cast<std::size_t>(row);
  const std::uint32_t mask = (1u << w.index_bits) - 1;
  std::uint64_t bits = 0;
  int n = 0;
  for (int i = 0; i < w.n_subvectors(); ++i) {
    if (n < w.index_bits) {
      std::uint32_t word;
      std::memcpy(&word, from, 4);
      from += 4;
      bits |= static_cast<std::uint64_t>(word) << n;
      n += 32;
    }
    out[i] = static_cast<std::uint16_t>(bits & mask);
    bits >>= w.index_bits;
    n -= w.index_bits;
  }
}

// Of the copies of entry e, a bit each.
std::uint32_t banks(int dim, int n_copies, int e) {
  if (dim == 8) {
    std::uint32_t out = 0;
    for (int c = 0; c < n_copies; ++c) out |= 1u << table_place(8, c, e) % 8;
    return out;
  }
  const int low = e % 16, a = e >> 4 & 15, b = e >> 8 & 15;
  std::uint32_t out = 1u << low;
  if (n_copies > 1) out |= 1u << (low ^ a);
  if (n_copies > 2) out |= 1u << (low ^ b) | 1u << (low ^ a ^ b);
  return out;
}

// Codes and banks, each of which has one code at most.
struct Matching {
  std::array<std::uint32_t, 16> reach;  // banks of a code's copies, a bit each
  std::array<int, 16> bank, owner;
  std::uint32_t free = 0;

  void take(int i, int b) {
    bank[static_cast<std::size_t>(i)] = b;
    owner[static_cast<std::size_t>(b)] = i;
  }
  bool take_free(int i) {
    const std::uint32_t mine = reach[static_cast<std::size_t>(i)] & free;
    if (mine == 0) return false;
    free &= ~(mine & -mine);
    take(i, std::countr_zero(mine));
    return true;
  }
  // The same, moving others to another bank of theirs, but not to one that is not in `unseen`.
  bool find(int i, std::uint32_t& unseen) {
    if (take_free(i)) return true;
    const std::uint32_t mine = reach[static_cast<std::size_t>(i)];
    while ((mine & unseen) != 0) {
      const int b = std::countr_zero(mine & unseen);
      unseen &= ~(1u << b);
      if (find(owner[static_cast<std::size_t>(b)], unseen)) {
        take(i, b);
        return true;
      }
    }
    return false;
  }
};

// One tile of rows: codes (8, padded subvectors) to its units.
class TilePacker {
 public:
  TilePacker(const VqMatrix& w, const UnitForm& f)
      : w_(w),
        f_(f),
        parts_(unit_parts(w.n_cols)),
        row_codes_(static_cast<std::size_t>(parts_ * kVqUnitColumns / w.dim)),
        codes_(kVqUnitRows * row_codes_) {}

  // `units`: all of the matrix.
  void pack(int tile, std::byte* units) {
    std::fill(codes_.begin(), codes_.end(), std::uint16_t{0});
    const int first = tile * kVqUnitRows;
    for (int r = 0; r < std::min(kVqUnitRows, w_.n_rows - first); ++r)
      read_codes(w_, first + r, codes_.data() + static_cast<std::size_t>(r) * row_codes_);
    for (int p = 0; p < parts_; ++p) {
      std::byte* to =
          units + unit_index(f_, first, p * kVqUnitColumns, w_.n_rows, w_.n_cols) * f_.bytes();
      put_fields(p, to);
      put_scales(first, p, to + f_.scales_at());
    }
  }

 private:
  void put_fields(int part, std::byte* to) {
    std::array<std::uint64_t, 32> bits{};
    std::array<std::uint16_t, 32> fields;
    int n = 0, word = 0;
    const auto put_words = [&](int least) {
      if (n < least) return;
      std::array<std::uint32_t, 32> words;
      for (std::size_t l = 0; l < 32; ++l) {
        words[l] = static_cast<std::uint32_t>(bits[l]);
        bits[l] >>= 32;
      }
      std::memcpy(to + 128 * word++, words.data(), sizeof words);
      n = std::max(n - 32, 0);
    };
    for (int i = 0; i < f_.fields(); ++i) {
      find_fields(part, i, fields);
      for (std::size_t l = 0; l < 32; ++l) bits[l] |= static_cast<std::uint64_t>(fields[l]) << n;
      n += f_.bits;
      put_words(32);
    }
    put_words(1);
  }
  void find_fields(int part, int i, std::array<std::uint16_t, 32>& fields) {
    const int per = 8 / f_.dim;  // codes of eight columns
    const int first = part * kVqUnitColumns / f_.dim + i / per * 4 * per + i % per;
    const auto at = static_cast<std::size_t>(first);
    for (std::size_t l = 0; l < 32; ++l)
      fields[l] = codes_[l / 4 * row_codes_ + at + l % 4 * static_cast<std::size_t>(per)];
    if (f_.copies() == 1) return;
    std::array<std::uint8_t, 32> copy;
    const int together = f_.dim == 8 ? 8 : 16;
    for (int l = 0; l < 32; l += together)
      choose_copies(f_.dim, f_.copies(), fields.data() + l, copy.data() + l);
    for (std::size_t l = 0; l < 32; ++l)
      fields[l] =
          static_cast<std::uint16_t>(copy[l] << 12 | table_place(f_.dim, copy[l], fields[l]));
  }
  void put_scales(int first_row, int part, std::byte* to) const {
    const int columns = kVqUnitColumns / f_.scales, n_groups = w_.n_groups();
    for (int r = 0; r < kVqUnitRows; ++r)
      for (int s = 0; s < f_.scales; ++s, to += 2) {
        const int row = first_row + r, col = part * kVqUnitColumns + s * columns;
        if (row < w_.n_rows && col < w_.n_cols)
          std::memcpy(
              to,
              w_.scales + 2 * (static_cast<std::size_t>(row) * static_cast<std::size_t>(n_groups) +
                               static_cast<std::size_t>(col / w_.group)),
              2);
        else
          std::memset(to, 0, 2);
      }
  }

  const VqMatrix& w_;
  UnitForm f_;
  int parts_;
  std::size_t row_codes_;
  std::vector<std::uint16_t> codes_;
};

}  // namespace

UnitForm UnitLaunch::form(const VqMatrix& w) const {
  if (by_sums || (by_slices && w.index_bits == 8))
    return {.dim = w.dim, .bits = w.index_bits, .sliced = true};
  int bits = w.index_bits;
  for (int c = table[kernels::table_of(w)].copies; w.index_bits == 12 && c > 1; c = (c + 1) / 2)
    ++bits;
  return {w.dim, bits, scales, by_slices};
}

std::size_t UnitLaunch::table_at(int which) const {
  if (which == k8x256) return 0;
  if (which == k4x256) return stride == 256 ? 128 : 8 * kKb;
  return small_bytes(*this) + (which == k4x4096 ? large_bytes(*this, k8x4096) : 0);
}

int UnitLaunch::most_copies() const {
  return std::max(table[k8x4096].copies, table[k4x4096].copies);
}

UnitPlan plan_units(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes) {
  CHECK(experts.size() % 3 == 0 && top_k > 0) << experts.size() << ", " << top_k;
  UnitPlan plan;
  if (!plan_launch(experts, false, top_k, shared_bytes, plan.gate_up)) return {};
  if (!plan_launch(experts, true, top_k, shared_bytes, plan.down)) return {};
  plan.top_k = top_k;
  return plan;
}

bool may_be_in_units(const VqMatrix& w) {
  const bool known =
      (w.dim == 4 || w.dim == 8) && (w.index_bits == 8 || w.index_bits == 12) && w.n_books == 1;
  return known && w.n_rows > 0 && unit_parts(w.n_cols) <= kMostWarps &&
         (w.group % 64 == 0 || w.group >= w.n_cols);
}

std::size_t unit_bytes(const VqMatrix& w, const UnitForm& f) {
  if (f.for_sums()) return sums_bytes(w);
  return static_cast<std::size_t>(unit_tiles(w.n_rows)) *
         static_cast<std::size_t>(unit_parts(w.n_cols)) * static_cast<std::size_t>(f.bytes());
}

std::vector<std::byte> pack_units(const VqMatrix& w, const UnitForm& f, ThreadPool& pool) {
  std::vector<std::byte> out(unit_bytes(w, f));
  pack_units_into(w, f, pool, out);
  return out;
}

void pack_units_into(const VqMatrix& w, const UnitForm& f, ThreadPool& pool,
                     std::span<std::byte> out) {
  if (f.for_sums()) return pack_sums_into(w, pool, out);
  CHECK(may_be_in_units(w) && (f.bits == w.index_bits || (w.index_bits == 12 && f.bits < 15)))
      << w.dim << ", " << w.index_bits << ", " << f.bits;
  CHECK(out.size() == unit_bytes(w, f)) << out.size();
  std::ranges::fill(out, std::byte{0});
  const int n_tiles = unit_tiles(w.n_rows);
  constexpr int kTilesAtOnce = 16;
  pool.parallel_for((n_tiles + kTilesAtOnce - 1) / kTilesAtOnce, [&](int i) {
    TilePacker packer(w, f);
    for (int t = i * kTilesAtOnce; t < std::min(n_tiles, (i + 1) * kTilesAtOnce); ++t)
      packer.pack(t, out.data());
  });
}

namespace {

// The banks of every entry's copies: looked up, for most of all that packing takes is here.
template <int kDim>
const std::uint16_t* banks_of_entries(int n_copies) {
  using Banks = std::array<std::uint16_t, 4096>;
  static const auto kAll = [] {
    std::array<Banks, 5> all{};
    for (int n = 1; n < 5; ++n)
      for (int e = 0; e < 4096; ++e)
        all[static_cast<std::size_t>(n)][static_cast<std::size_t>(e)] =
            static_cast<std::uint16_t>(banks(kDim, std::min(n, kDim == 8 ? 3 : 4), e));
    return all;
  }();
  return kAll[static_cast<std::size_t>(n_copies)].data();
}

// The first copy of entry e that is in that bank, without a branch that nobody can foresee.
template <int kDim>
int copy_in_bank(int e, int bank) {
  const int n = kDim == 8 ? 8 : 16, shift = kDim == 8 ? 3 : 4;
  const int off = (bank ^ e) & (n - 1), first = e >> shift & (n - 1),
            second = e >> 2 * shift & (n - 1);
  const int last = kDim == 8 ? 2 : off == second ? 2 : 3;
  const int moved = off == first ? 1 : last;
  return off == 0 ? 0 : moved;
}

template <int kDim>
int choose_copies(int n_copies, const std::uint16_t* codes, std::uint8_t* copy) {
  constexpr int kCodes = kDim == 8 ? 8 : 16;
  const std::uint16_t* reach = banks_of_entries<kDim>(n_copies);
  Matching m;
  for (int i = 0; i < kCodes; ++i) m.reach[static_cast<std::size_t>(i)] = reach[codes[i]];
  constexpr std::uint32_t kEvery = (1u << kCodes) - 1;
  std::uint32_t left = kEvery;
  int n_reads = 0;
  for (; left != 0; ++n_reads) {
    m.free = kEvery;
    bool all_found = true;
    for (std::uint32_t of = left; of != 0; of &= of - 1) {
      const int i = std::countr_zero(of);
      std::uint32_t unseen = kEvery;
      if (all_found ? m.find(i, unseen) : m.take_free(i))
        left &= ~(1u << i);
      else
        all_found = false;
    }
  }
  for (int i = 0; i < kCodes; ++i)
    copy[i] = static_cast<std::uint8_t>(
        copy_in_bank<kDim>(codes[i], m.bank[static_cast<std::size_t>(i)]));
  return n_reads;
}

}  // namespace

// As long as all have got one, each gets a bank of its own; then, since it is too late for that,
// who finds one free. The rest once more, and so on.
int choose_copies(int dim, int n_copies, const std::uint16_t* codes, std::uint8_t* copy) {
  return dim == 8 ? choose_copies<8>(n_copies, codes, copy)
                  : choose_copies<4>(n_copies, codes, copy);
}

}  // namespace assay::kernels
