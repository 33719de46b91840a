#include "kernels/vq_sums.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/vq_pack.h"

namespace assay::kernels {
namespace {

constexpr int kLeastRows = 1024;

bool may_be_summed(const VqMatrix& w) {
  return (w.dim == 4 || w.dim == 8) && w.index_bits == 8 && w.n_books == 1 && w.n_rows > 0 &&
         w.n_cols > 0 && w.n_cols % w.dim == 0 && (w.group % 128 == 0 || w.group >= w.n_cols);
}

// Of gate and up, or of down.
bool plan_launch(std::span<const VqMatrix> experts, bool down, UnitLaunch& l) {
  const VqMatrix& like = experts[down ? 2 : 0];
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const VqMatrix& w = experts[i];
    if ((i % 3 == 2) != down) continue;
    if (!may_be_summed(w) || w.dim != like.dim || w.codebook != like.codebook ||
        w.n_codes != like.n_codes)
      return false;
  }
  l.table[like.dim == 8 ? UnitLaunch::k8x256 : UnitLaunch::k4x256] = {like.codebook, like.n_codes,
                                                                      1};
  l.by_sums = true;
  return true;
}

// Zeros are there already.
void pack_unit(const VqMatrix& w, int slice, int tile, std::byte* to) {
  const int first_code = slice * kSumsCodes, first_col = slice * sums_columns(w.dim);
  const int n_codes = std::min(kSumsCodes, w.n_subvectors() - first_code);
  const int last_col = std::min(w.n_cols, first_col + sums_columns(w.dim));
  const int first_row = tile * kVqUnitRows;
  for (int row = first_row; row < std::min(w.n_rows, first_row + kVqUnitRows); ++row) {
    const auto r = static_cast<std::size_t>(row);
    const std::byte* codes = w.codes + 4 * r * static_cast<std::size_t>(w.row_words()) + first_code;
    for (int c = 0; c < n_codes; ++c) to[sums_code_at(row, c)] = codes[c];
    for (int col = first_col; col < last_col; col += 128) {
      const std::size_t scale =
          r * static_cast<std::size_t>(w.n_groups()) + static_cast<std::size_t>(col / w.group);
      std::memcpy(to + sums_scale_at(w.dim, row, col), w.scales + 2 * scale, 2);
    }
  }
}

}  // namespace

UnitPlan plan_sums(std::span<const VqMatrix> experts, int top_k, std::size_t shared_bytes) {
  CHECK(experts.size() % 3 == 0 && top_k > 0) << experts.size() << ", " << top_k;
  UnitPlan plan;
  if (experts.empty() || shared_bytes < kSumsSharedBytes) return {};
  if (!plan_launch(experts, false, plan.gate_up) || !plan_launch(experts, true, plan.down))
    return {};
  plan.top_k = top_k;
  return plan;
}

bool sums_pay(std::span<const VqMatrix> experts) {
  return std::all_of(experts.begin(), experts.end(), [](const VqMatrix& w) {
    const int padded = sums_slices(w.n_cols, w.dim) * sums_columns(w.dim);
    return w.n_rows >= kLeastRows && padded - w.n_cols <= w.n_cols / 8;
  });
}

std::size_t sums_bytes(const VqMatrix& w) {
  return static_cast<std::size_t>(unit_tiles(w.n_rows)) *
         static_cast<std::size_t>(sums_slices(w.n_cols, w.dim)) *
         static_cast<std::size_t>(sums_unit_bytes(w.dim));
}

std::vector<std::byte> pack_sums(const VqMatrix& w, ThreadPool& pool) {
  std::vector<std::byte> out(sums_bytes(w));
  pack_sums_into(w, pool, out);
  return out;
}

void pack_sums_into(const VqMatrix& w, ThreadPool& pool, std::span<std::byte> out) {
  CHECK(may_be_summed(w)) << w.dim << ", " << w.index_bits << ", " << w.group;
  CHECK(out.size() == sums_bytes(w)) << out.size();
  std::ranges::fill(out, std::byte{0});
  const int n_tiles = unit_tiles(w.n_rows), n_slices = sums_slices(w.n_cols, w.dim);
  const auto unit_bytes = static_cast<std::size_t>(sums_unit_bytes(w.dim));
  constexpr int kTilesAtOnce = 16;
  pool.parallel_for((n_tiles + kTilesAtOnce - 1) / kTilesAtOnce, [&](int i) {
    for (int s = 0; s < n_slices; ++s)
      for (int t = i * kTilesAtOnce; t < std::min(n_tiles, (i + 1) * kTilesAtOnce); ++t)
        pack_unit(w, s, t, out.data() + static_cast<std::size_t>(s * n_tiles + t) * unit_bytes);
  });
}

}  // namespace assay::kernels
