// Products with vector-quantised matrices on the CPU, straight from their codes.
//
// The bits of a result do not depend on the target, the number of tokens, or how work is shared
// out. They depend on the method, which is a function of the matrix's shape alone:
//   partial sums: T_j[i] = codeword_i · x_j once per sub-vector, then one look-up per row;
//                 y_r = Σ_g scale_rg (Σ_{j in g} T_j[index_rj])
//   codewords:    weights of 16 rows at a time from the codebook, then
//                 y_r = Σ_g scale_rg (Σ_{c in g} codeword_rc x_c)
// every sum one chain in ascending order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/cpu_target.h"
#include "kernels/quantised.h"
#include "kernels/weight_arena.h"

namespace assay::kernels {

enum class VqMethod { kPartialSums, kCodewords };
VqMethod vq_method(const VqMatrix& w);

// The codes of one matrix in the order in which the kernels read them, as many bits as on disk.
// Its memory is the arena's; the codebook stays the caller's.
//
// Rows come in blocks of 64, columns in scale groups; a tile is one block in one group and holds
// [sub-vector][book][64 indices], then the 64 rows' scales in binary16. Tiles lie [group][block].
// Partial sums: a group is cut into turns of 16 sub-vectors, whose tables lie in the first-level
// cache together, and tiles lie [group][turn][block], so that all rows of a turn are one forward
// stream; the scales follow the last turn's indices. Rows that pad have index and scale zero.
class PackedVq {
 public:
  PackedVq() = default;
  static PackedVq pack(WeightArena& arena, const VqMatrix& w);

  // The largest layouts that are packed: all that readers accept
  // (engine/checkpoint/quantisation.cc).
  static constexpr int kMaxDim = 64, kMaxBooks = 8;

  // Work is shared out by whole blocks.
  static constexpr int kBlockRows = 64;
  int n_rows() const { return shape_.n_rows; }
  int n_cols() const { return shape_.n_cols; }
  int n_blocks() const { return (n_rows() + kBlockRows - 1) / kBlockRows; }
  bool empty() const { return n_rows() == 0; }
  std::size_t bytes() const { return bytes_; }  // of codes and scales
  VqMethod method() const { return method_; }

  // Dimensions and codebook; codes and scales are null.
  const VqMatrix& shape() const { return shape_; }
  int n_subvectors(int group) const {
    return std::min(shape_.group, shape_.n_cols - group * shape_.group) / shape_.dim;
  }
  // 64 indices of one sub-vector and book. Codewords: in row order, a stream of index_bits each.
  std::size_t indices_bytes() const { return std::size_t{8} * shape_.index_bits; }
  std::size_t scales_offset(int group) const {
    return static_cast<std::size_t>(n_subvectors(group)) * shape_.n_books * indices_bytes();
  }
  std::size_t tile_bytes(int group) const { return scales_offset(group) + 2 * kBlockRows; }
  const std::byte* tile(int group, int block) const {
    return data_ + tile_bytes(0) * group * n_blocks() + tile_bytes(group) * block;
  }
  // Partial sums.
  static constexpr int kTurn = 16;  // sub-vectors
  int n_turns(int group) const { return (n_subvectors(group) + kTurn - 1) / kTurn; }
  int n_tables(int group, int turn) const {
    return std::min(kTurn, n_subvectors(group) - turn * kTurn);
  }
  std::size_t turn_bytes(int group, int turn) const {
    const bool last = turn + 1 == n_turns(group);
    return indices_bytes() * n_tables(group, turn) + (last ? 2 * kBlockRows : 0);
  }
  const std::byte* turn(int group, int turn, int block) const {
    return tile(group, 0) + indices_bytes() * kTurn * turn * n_blocks() +
           turn_bytes(group, turn) * block;
  }
  // Partial sums: the place of a row's index, a byte, among the 64. Interleaving four vectors that
  // hold byte 0 … 3 of 64 values so gives the values in row order; see vq_vbmi.cc. Its own inverse.
  static constexpr int byte_of_row(int row) {
    return (row & 3) | (row >> 2 & 3) << 4 | (row >> 4 & 3) << 2;
  }

 private:
  VqMatrix shape_;
  std::size_t bytes_ = 0;
  VqMethod method_ = VqMethod::kCodewords;
  std::byte* data_ = nullptr;
};

// Products of several matrices with the same inputs (an expert's gate and up, or those of every
// selected expert): partial-sum tables are built once for all that share a codebook.
struct VqProduct {
  const PackedVq* w;
  float* const* y;  // (n_tokens) pointers to n_rows values; must not overlap x
  int first_block, last_block;
};
// How sums are fetched from a table of 256: byte permutations (AVX-512 VBMI), gathers of eight
// beside scalar loads, or one scalar load each. All have the same bits.
enum class VqFetch { kBest, kVbmi, kGather, kScalar };
std::string_view vq_fetch_name(VqFetch fetch);
// Those that this machine can run with `target`, best first.
std::vector<VqFetch> usable_vq_fetches(CpuTarget target);

struct VqProjectArgs {
  std::span<const VqProduct> products;
  const float* const* x;  // (n_tokens) pointers to n_cols values, the same for all products
  int n_tokens;
  bool accumulate;
  float* scratch;  // vq_scratch() floats, aligned to 64 bytes
  VqFetch fetch = VqFetch::kBest;
};
std::size_t vq_scratch();
void vq_project_cpu(CpuTarget target, const VqProjectArgs& args);

}  // namespace assay::kernels
