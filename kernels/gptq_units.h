// How a GPTQ matrix lies on a device: in units, each of 16 rows and one group of columns, tile of
// rows by tile and, in it, group by group. A unit is the lanes of mma.m16n8k16 one beside the other
// (what a warp reads is contiguous), then a word for each row, its binary16 scale below a binary16
// 1024 + z + 1. Rows past the matrix have codes and scales of zero.
//
// Lane 4 r + t has rows r and r + 8, and of the group's columns the t-th quarter, in the order of
// the file's words; its words come in pieces of at most 16 bytes: (piece, half, lane, word).
#pragma once

namespace assay::kernels {

inline constexpr int kUnitRows = 16;

struct GptqUnits {
  int lane_shift;  // log2 of the words of a quarter of a group

  constexpr int group_words() const { return 4 << lane_shift; }  // of a row
  constexpr int code_words() const { return kUnitRows * group_words(); }
  constexpr int words() const { return code_words() + kUnitRows; }
  // Word i of row `row` (below 16) of the group; words 2 i and 2 i + 1 follow each other unless a
  // lane has a single one.
  constexpr int code(int row, int i) const {
    const int piece_shift = lane_shift < 2 ? lane_shift : 2;
    const int k = i & ((1 << lane_shift) - 1), lane = (row & 7) * 4 + (i >> lane_shift);
    return (((((k >> piece_shift) << 1) + (row >> 3)) * 32 + lane) << piece_shift) +
           (k & ((1 << piece_shift) - 1));
  }
  constexpr int scale(int row) const { return code_words() + row; }
};

// GptqUnits::lane_shift of such a matrix; -1 where its shape allows no units, so that it lies in
// rows.
constexpr int lane_shift_of(int bits, int n_cols, int group) {
  const int shift = group == 128 ? 2 : group == 64 ? 1 : group == 32 ? 0 : -1;
  if (shift < 0 || n_cols % group != 0) return -1;
  return bits == 8 ? shift + 1 : shift;
}

}  // namespace assay::kernels
