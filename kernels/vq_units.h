// VQ matrices of a layer's routed experts as moe_cuda reads them: in units of 8 rows by 512
// columns, one piece of memory each, and the tables that a block keeps of the codebooks. Rows are
// padded to 8 and columns to 512: code 0, scale 0.
//
// A unit is 32 streams of fields, one a lane, then its scales. Lane 4 r + t has of row r the
// columns 32 m + 8 t … 32 m + 8 t + 7 of every m, which an mma instruction takes together; field i
// lies at bit i · bits of the lane's stream, word k of the streams of all lanes in 128 bytes.
// Scales are binary16, (8, scales).
//
// A codebook of 4096 is kept in up to four copies, which have an entry in different banks of shared
// memory: what lanes read together may be read from copies that keep them apart. Which copy a code
// is read from is chosen here, once, and part of its field: the entry's place, then the copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/quantised.h"

namespace assay::kernels {

constexpr int kVqUnitRows = 8, kVqUnitColumns = 512;

struct UnitForm {
  int dim = 0;
  int bits = 0;         // of a field: 8, or 12 to 14 with those that choose a copy. 0: not in units
  int scales = 0;       // of a row: 4, of 128 columns each, or 8, of 64
  bool sliced = false;  // those of a slice of columns lie together: vq_sums.h has how units of 8
                        // bits are made then (dim and bits are set), others lie column-major
  constexpr bool for_sums() const { return sliced && bits == 8; }

  constexpr int fields() const { return 128 / dim; }  // of a lane
  constexpr int words() const { return (fields() * bits + 31) / 32; }
  constexpr int scales_at() const { return 128 * words(); }  // bytes
  constexpr int bytes() const { return scales_at() + 2 * kVqUnitRows * scales; }
  constexpr int copies() const {
    return bits <= 12 ? 1 : dim == 8 && bits == 14 ? 3 : 1 << (bits - 12);
  }
};
// Whether units can hold it: of one codebook of 256 or 4,096 words, in at most 16 parts of columns.
bool may_be_in_units(const VqMatrix& w);
constexpr int unit_tiles(int n_rows) { return (n_rows + kVqUnitRows - 1) / kVqUnitRows; }
constexpr int unit_parts(int n_cols) { return (n_cols + kVqUnitColumns - 1) / kVqUnitColumns; }
constexpr std::int64_t unit_index(const UnitForm& f, int row, int col, int n_rows, int n_cols) {
  const std::int64_t tile = row / kVqUnitRows, part = col / kVqUnitColumns;
  return f.sliced ? part * unit_tiles(n_rows) + tile : tile * unit_parts(n_cols) + part;
}
constexpr int unit_lane(int row, int col) { return row % kVqUnitRows * 4 + col % 32 / 8; }
constexpr int unit_field(int dim, int col) {
  return col % kVqUnitColumns / 32 * (8 / dim) + col % 8 / dim;
}
constexpr int unit_scale(const UnitForm& f, int row, int col) {
  return row % kVqUnitRows * f.scales + col % kVqUnitColumns / (kVqUnitColumns / f.scales);
}

// Where copy `copy` of a codebook of 4096 has entry e; for each copy its own inverse.
constexpr int table_place(int dim, int copy, int e) {
  if (dim == 8) return e ^ ((copy == 0 ? 0 : copy == 1 ? e >> 3 : e >> 6) & 7);
  return e ^ (((copy & 1) != 0 ? e >> 4 : 0) ^ ((copy & 2) != 0 ? e >> 8 : 0)) % 16;
}
constexpr int code_of_field(const UnitForm& f, unsigned field) {
  const auto n = static_cast<int>(field);
  return f.bits == 8 ? n : table_place(f.dim, n >> 12, n & 4095);
}

// What one launch, of gate and up or of down, keeps in a block's shared memory: tables, a ring of
// stages that units arrive in, and sums of rows. Warps: `parts` to a tile of 8 rows, each with 512
// columns, and `lines` tiles or experts at once.
struct UnitLaunch {
  struct Table {
    const float* codebook = nullptr;  // the host's
    int n_codes = 0, copies = 0;      // 0: there is none
  };
  enum TableOf { k8x256, k4x256, k8x4096, k4x4096, kTables };
  Table table[kTables];
  // Tables of 256 codewords: bytes from entry to entry. 256: both interleaved, a copy for every
  // bank that a lane of a half or quarter warp may read; 32, where memory is short: two copies, or
  // four.
  int stride = 256;
  int scales = 0;  // UnitForm::scales
  int parts = 0, lines = 0, stages = 0;
  int job_bytes = 0;            // of a tile's row of units, at most
  bool by_sums = false;         // vq_sums.h: of all this only the codebooks are set
  bool by_slices = false;       // vq_slices.h: likewise, and copies
  std::size_t table_bytes = 0;  // of all
  std::size_t sum_bytes = 0;    // what is left for sums

  UnitForm form(const VqMatrix& w) const;
  std::size_t table_at(int which) const;  // bytes
  static constexpr TableOf table_of(int dim, int index_bits) {
    if (index_bits == 8) return dim == 8 ? k8x256 : k4x256;
    return dim == 8 ? k8x4096 : k4x4096;
  }
  int most_copies() const;  // of a codebook of 4096
};

// How a layer's experts are laid out and multiplied, a function of their shapes and codebooks and
// of a device's shared memory.
struct UnitPlan {
  UnitLaunch gate_up, down;
  int top_k = 0;  // 0: not in units

  bool is_in_units() const { return top_k > 0; }
  bool is_by_sums() const { return gate_up.by_sums; }
  bool is_by_slices() const { return gate_up.by_slices; }
  const UnitLaunch& of(int part) const { return part < 2 ? gate_up : down; }
};
// `experts` (n_experts, 3): gate, up, down. In units where every matrix has at most 8192 columns
// and one codebook of 4 or 8 values with indices of 8 or 12 bits, scales of 64, 128 or a multiple
// of either columns, gate and up, and down, one codebook for each length and kind of index, and all
// this fits shared_bytes (of a block).
//
// Codebooks of 4096 are kept in several copies only where a launch has no others, and while tables
// take no more than 136 KB: fields then are longer, so such a layer takes 8 to 17 % more memory
// than its file, and others take no more.
UnitPlan plan_units(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes);

// All units, in order of rows, then columns; those for sums as vq_sums.h says.
std::size_t unit_bytes(const VqMatrix& w, const UnitForm& f);
std::vector<std::byte> pack_units(const VqMatrix& w, const UnitForm& f, ThreadPool& pool);

// Which copy each of n codes that are read together comes from (n = 16 of 8 bytes, or 8 of 16), so
// that few want one bank. Returns how many do at most: how often shared memory is read.
int choose_copies(int dim, int n_copies, const std::uint16_t* codes, std::uint8_t* copy);

}  // namespace assay::kernels
