// The indexer of the cpu backend: which keys each row may attend to.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/backend/cpu_backend.h"
#include "kernels/indexer.h"
#include "kernels/mla_attention.h"
#include "kernels/norm.h"

namespace assay::engine {
namespace {

// Rows that score one stretch of keys in turn while it is in cache.
constexpr int kRowsPerItem = 8;
constexpr int kKeyBlocksPerPass = 32;  // 512 keys

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

void CpuBackend::append_index_keys(int layer) {
  const CpuLayer& l = m_.layers[layer];
  const int dim = c_.index_head_dim;
  index_k_.reserve(static_cast<std::size_t>(n_) * static_cast<std::size_t>(dim));
  project_rows(l.index_k, act(Act::kNormed, 0), c_.hidden, index_k_.data(), dim, false);
  // Rows of one block of 16 keys lie side by side in memory, so few, long pieces.
  constexpr int kRows = 64;
  pool_.parallel_for(ceil_div(n_, kRows), [&](int i) {
    for (int r = i * kRows; r < std::min(n_, (i + 1) * kRows); ++r) {
      float* k = &index_k_[static_cast<std::size_t>(r) * dim];
      kernels::layer_norm_cpu(m_.target, k, l.index_norm_weight.data(), l.index_norm_bias.data(),
                              ModelConfig::kIndexerLayerNormEps, dim, k);
      rotate(r, c_.indexer_rope_interleave, k);
      kernels::store_key_lane(k, dim, position_of_[r], cache_of_[r]->index_blocks(layer));
    }
  });
}

void CpuBackend::index(int layer) {
  const CpuLayer& l = m_.layers[layer];
  const int heads = c_.index_n_heads, width = heads * c_.index_head_dim;
  const auto n = static_cast<std::size_t>(n_);
  append_index_keys(layer);

  // A row with no more keys than index_topk selects them all, whatever their scores.
  n_selected_.assign(n, kAll);
  selection_margin_.assign(n, std::numeric_limits<float>::infinity());
  const auto scored = [&](int r) { return position_of_[r] + 1 > c_.index_topk; };
  int n_scored = 0;
  for (int r = 0; r < n_; ++r) n_scored += scored(r);
  if (n_scored == 0) return;

  selected_.resize(n * static_cast<std::size_t>(c_.index_topk));
  index_q_.reserve(n * static_cast<std::size_t>(width));
  index_weights_.reserve(n * static_cast<std::size_t>(heads));
  project_rows(l.index_q, act(Act::kQueryResid, 0), c_.q_lora, index_q_.data(), width, false);
  project_rows(l.index_weights, act(Act::kNormed, 0), c_.hidden, index_weights_.data(), heads,
               false);

  // Runs of scored rows of one sequence.
  std::vector<std::pair<int, int>> items;  // (first row, rows)
  const int rows_per_item = n_scored >= 2 * kRowsPerItem * pool_.n_threads() ? kRowsPerItem : 1;
  for (const Segment& s : rows_.segments)
    for (int r = s.first_row, end = s.first_row + s.n_rows; r < end;) {
      if (!scored(r)) {
        ++r;
        continue;
      }
      const int rows = std::min(rows_per_item, end - r);
      items.emplace_back(r, rows);
      r += rows;
    }
  const int n_items = static_cast<int>(items.size());
  for_each(n_items, [&](Slot& slot, int i) {
    const auto [first, rows] = items[n_items - 1 - i];  // the longest first
    score_and_select(slot, layer, first, rows);
  });
}

void CpuBackend::score_and_select(Slot& slot, int layer, int first_row, int n_rows) {
  const int heads = c_.index_n_heads, dim = c_.index_head_dim;
  const float head_scale = 1.0f / std::sqrt(static_cast<float>(heads));
  for (int r = first_row; r < first_row + n_rows; ++r) {
    for (int h = 0; h < heads; ++h) {
      rotate(r, c_.indexer_rope_interleave,
             &index_q_[(static_cast<std::size_t>(r) * heads + h) * dim]);
      index_weights_[static_cast<std::size_t>(r) * heads + h] *= head_scale;
    }
  }
  const int n_blocks = ceil_div(position_of_[first_row + n_rows - 1] + 1, 16);
  const std::size_t stride = static_cast<std::size_t>(n_blocks) * 16;
  slot.scores.reserve(stride * static_cast<std::size_t>(n_rows));
  const float* keys = cache_of_[first_row]->index_blocks(layer);
  for (int block = 0; block < n_blocks; block += kKeyBlocksPerPass)
    for (int i = 0; i < n_rows; ++i)
      kernels::index_scores_cpu(
          m_.target, {.q = &index_q_[static_cast<std::size_t>(first_row + i) * heads * dim],
                      .weights = &index_weights_[static_cast<std::size_t>(first_row + i) * heads],
                      .key_blocks = keys + static_cast<std::ptrdiff_t>(block) * dim * 16,
                      .n_blocks = std::min(kKeyBlocksPerPass, n_blocks - block),
                      .n_heads = heads,
                      .head_dim = dim,
                      .scores = &slot.scores[static_cast<std::size_t>(i) * stride +
                                             static_cast<std::size_t>(block) * 16]});
  for (int i = 0; i < n_rows; ++i) {
    const int r = first_row + i;
    slot.top_k.select(&slot.scores[static_cast<std::size_t>(i) * stride], position_of_[r] + 1,
                      c_.index_topk, &selected_[static_cast<std::size_t>(r) * c_.index_topk],
                      &selection_margin_[r]);
    n_selected_[r] = c_.index_topk;
  }
}

}  // namespace assay::engine
