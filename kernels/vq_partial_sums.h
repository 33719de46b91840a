// What the partial-sums product keeps in the caller's scratch memory.
#pragma once

#include "kernels/vq.h"

namespace assay::kernels {

struct VqScratch {
  // Tables of up to 16 sub-vectors fill half of a first-level cache; a longer scale group takes
  // several turns. Tokens share the codes of a row range while they are near.
  static constexpr int kTables = PackedVq::kTurn, kTokens = 8;
  // What the method takes: indices of a byte, and a codebook that leaves the tables their room.
  static constexpr int kCodes = 256, kMaxDim = 16;
  static constexpr int kBlocks = 512;  // of 64 rows, times tokens

  float codebook[kMaxDim * kCodes];  // transposed: (dim, 256)
  float tables[kTokens][kTables * kCodes];
  float sums[kBlocks * PackedVq::kBlockRows];  // of the scale group
  float y[kBlocks * PackedVq::kBlockRows];
};

inline bool share_tables(const VqProduct& a, const VqProduct& b) {
  const VqMatrix &u = a.w->shape(), &v = b.w->shape();
  return a.w->method() == VqMethod::kPartialSums && b.w->method() == VqMethod::kPartialSums &&
         u.codebook == v.codebook && u.dim == v.dim && u.group == v.group;
}

}  // namespace assay::kernels
