#include <cstring>

#include "base/check.h"
#include "kernels/vq.h"
#include "kernels/vq_partial_sums.h"

namespace assay::kernels {
namespace {

int stored_bits(const VqMatrix& w) {
  return vq_method(w) == VqMethod::kPartialSums ? 8 : w.index_bits;
}

}  // namespace

// A table costs 256 chains of dim multiply-adds, 16 at once: 16 dim operations. What it saves is
// fetching and transposing codewords instead of one look-up and one addition, at least one
// operation per row.
VqMethod vq_method(const VqMatrix& w) {
  return w.n_codes == VqScratch::kCodes && w.n_books == 1 && w.dim <= VqScratch::kMaxDim &&
                 w.n_rows >= 16 * w.dim
             ? VqMethod::kPartialSums
             : VqMethod::kCodewords;
}

PackedVq PackedVq::pack(WeightArena& arena, const VqMatrix& w) {
  CHECK(w.dim >= 1 && w.dim <= kMaxDim && w.n_cols % w.dim == 0 && w.group % w.dim == 0)
      << "dim " << w.dim << ", group " << w.group << ", " << w.n_cols << " columns";
  CHECK(w.index_bits >= 1 && w.index_bits <= 16 && w.n_books >= 1 && w.n_books <= kMaxBooks)
      << w.index_bits << " bits, " << w.n_books << " books";
  PackedVq m;
  m.shape_ = w;
  m.shape_.codes = m.shape_.scales = nullptr;
  m.shape_.index_bits = stored_bits(w);
  m.method_ = vq_method(w);
  const int n_groups = w.n_groups(), n_blocks = m.n_blocks(), bits = m.shape_.index_bits;
  for (int g = 0; g < n_groups; ++g) m.bytes_ += m.tile_bytes(g) * n_blocks;
  constexpr std::size_t kReadBeyond = 64;  // the kernels load whole vectors of indices
  m.data_ = static_cast<std::byte*>(arena.allocate(m.bytes_ + kReadBeyond));

  for (int r = 0; r < w.n_rows; ++r) {
    const int block = r / kBlockRows, lane = r % kBlockRows;
    for (int g = 0; g < n_groups; ++g) {
      const auto place = [&](const std::byte* p) { return m.data_ + (p - m.data_); };
      const auto put_scale = [&](std::byte* scales) {
        std::memcpy(scales + 2 * lane, w.scales + 2 * (static_cast<std::size_t>(r) * n_groups + g),
                    2);
      };
      const int first = g * w.group / w.dim;
      if (m.method_ == VqMethod::kPartialSums) {
        for (int turn = 0; turn < m.n_turns(g); ++turn) {
          std::byte* at = place(m.turn(g, turn, block));
          for (int j = 0; j < m.n_tables(g, turn); ++j, at += kBlockRows)
            at[byte_of_row(lane)] =
                static_cast<std::byte>(vq_index(w, r, first + turn * kTurn + j, 0));
          if (turn + 1 == m.n_turns(g)) put_scale(at);
        }
        continue;
      }
      std::byte* at = place(m.tile(g, block));
      put_scale(at + m.scales_offset(g));
      for (int j = 0; j < m.n_subvectors(g); ++j)
        for (int book = 0; book < w.n_books; ++book, at += m.indices_bytes()) {
          const auto index = static_cast<std::uint32_t>(vq_index(w, r, first + j, book));
          const int bit = lane * bits;
          for (std::uint32_t rest = index << (bit % 8), i = 0; rest != 0; rest >>= 8, ++i)
            at[bit / 8 + i] |= static_cast<std::byte>(rest & 255);
        }
    }
  }
  return m;
}

}  // namespace assay::kernels
