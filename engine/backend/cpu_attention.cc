// Multi-head latent attention of the cpu backend.
#include <algorithm>

#include "base/check.h"
#include "engine/backend/cpu_backend.h"
#include "kernels/norm.h"
#include "kernels/project.h"

namespace assay::engine {
namespace {

// (query, head) pairs of one tile: three vectors of 16 lanes, and a tile's scratch stays in cache.
constexpr int kPairsPerTile = 48;

}  // namespace

kernels::MlaState CpuBackend::MlaScratch::state() {
  return {softmax.data(), softmax.data() + n_lanes, latent.data()};
}

void CpuBackend::rotate(int row, bool interleaved, float* x) const {
  const std::size_t first =
      static_cast<std::size_t>(row) * static_cast<std::size_t>(c_.qk_rope / 2);
  kernels::rope_cpu(&cosine_[first], &sine_[first], c_.qk_rope, interleaved, x);
}

void CpuBackend::append_kv(int layer) {
  constexpr int kRows = 64;
  pool_.parallel_for((n_ + kRows - 1) / kRows, [&](int i) {
    for (int r = i * kRows; r < std::min(n_, (i + 1) * kRows); ++r) {
      const float* in = act(Act::kKvLora, r);
      float* out = cache_of_[r]->kv_row(layer, position_of_[r]);
      kernels::rms_norm_cpu(m_.target, in, m_.layers[layer].kv_a_norm.data(),
                            ModelConfig::kLoraRmsEps, c_.kv_lora, out);
      std::copy(in + c_.kv_lora, in + c_.kv_row(), out + c_.kv_lora);
      rotate(r, c_.rope_interleave, out + c_.kv_lora);
      kernels::store_key_lane(out, c_.kv_row(), position_of_[r], cache_of_[r]->key_blocks(layer));
    }
  });
}

// Tiles of all heads. Where they are too few to keep the threads busy and one query attends to
// consecutive keys, tiles of fewer heads instead.
void CpuBackend::plan_mla_tiles(bool sparse) {
  const int queries = std::max(1, kPairsPerTile / c_.n_heads);
  CHECK(!sparse || static_cast<int>(n_selected_.size()) == n_) << "no index before attention";
  tiles_.clear();
  for (const Segment& s : rows_.segments) {
    const int end = s.first_row + s.n_rows;
    for (int r = s.first_row; r < end;) {
      MlaTile tile{.first_row = r, .n_rows = 1, .first_head = 0, .n_heads = c_.n_heads};
      if (sparse && n_selected_[r] != kAll) {
        tile.keys = selected_.data() + static_cast<std::ptrdiff_t>(r) * c_.index_topk;
        tile.n_keys = n_selected_[r];
      } else {
        while (tile.n_rows < queries && r + tile.n_rows < end &&
               (!sparse || n_selected_[r + tile.n_rows] == kAll))
          ++tile.n_rows;
        tile.n_keys = position_of_[r + tile.n_rows - 1] + 1;
      }
      tiles_.push_back(tile);
      r += tile.n_rows;
    }
  }
  const int n_tiles = static_cast<int>(tiles_.size()), n_threads = pool_.n_threads();
  if (n_tiles >= 2 * n_threads || n_threads == 1) return;
  // One tile: a part to each thread. Several, which may see contexts of very different lengths:
  // more parts than threads.
  const int parts =
      std::min(c_.n_heads, n_tiles == 1 ? n_threads : (2 * n_threads + n_tiles - 1) / n_tiles);
  if (parts < 2 || n_tiles * parts < n_threads) return;
  for (int t = 0; t < n_tiles; ++t) {
    MlaTile& tile = tiles_[t];
    if (!tile.by_key()) continue;
    const MlaTile whole = tile;
    tile.n_heads = c_.n_heads / parts;
    for (int p = 1; p < parts; ++p) {
      MlaTile part = whole;
      part.first_head = c_.n_heads * p / parts;
      part.n_heads = c_.n_heads * (p + 1) / parts - part.first_head;
      tiles_.push_back(part);
    }
  }
}

// Absorbs W_k into the tile's queries, rotates their rope part and lays them out for the kernel.
void CpuBackend::prepare_queries(const CpuLayer& layer, const MlaTile& tile, MlaScratch& s) {
  const int width = c_.kv_row(), n_pairs = tile.n_pairs();
  const auto pairs = static_cast<std::size_t>(n_pairs);
  s.n_lanes = kernels::mla_lanes(n_pairs);
  s.absorbed.reserve(pairs * static_cast<std::size_t>(width));
  s.transposed.reserve(static_cast<std::size_t>(s.n_lanes) * static_cast<std::size_t>(width));
  s.softmax.reserve(2 * static_cast<std::size_t>(s.n_lanes));
  s.latent.reserve(pairs * static_cast<std::size_t>(kernels::mla_latent_stride(c_.kv_lora)));

  const float* x[kPairsPerTile];
  float* y[kPairsPerTile];
  for (int h = 0; h < tile.n_heads; ++h) {
    const kernels::PackedMatrix& w = layer.key_up[tile.first_head + h];
    for (int r = 0; r < tile.n_rows; ++r) {
      x[r] = act(Act::kQuery, tile.first_row + r) + (tile.first_head + h) * c_.qk_head();
      y[r] = &s.absorbed[static_cast<std::size_t>(r * tile.n_heads + h) * width];
      std::copy(x[r] + c_.qk_nope, x[r] + c_.qk_head(), y[r] + c_.kv_lora);
      rotate(tile.first_row + r, c_.rope_interleave, y[r] + c_.kv_lora);
    }
    kernels::project_cpu(m_.target, {.w = &w,
                                     .x = x,
                                     .y = y,
                                     .n_tokens = tile.n_rows,
                                     .first_block = 0,
                                     .last_block = w.n_blocks(),
                                     .accumulate = false});
  }
  if (!tile.by_key())
    kernels::mla_transpose_queries(s.absorbed.data(), n_pairs, width, s.transposed.data());
}

void CpuBackend::attend_block(int layer, const MlaTile& tile, int block, bool first,
                              const MlaScratch& queries, const kernels::MlaState& state,
                              MlaScratch& own) {
  const int first_key = block * kernels::kMlaKeyBlock;
  const int n_keys = std::min(kernels::kMlaKeyBlock, tile.n_keys - first_key);
  CpuCache& cache = *cache_of_[tile.first_row];
  const float* rows[kernels::kMlaKeyBlock];
  for (int j = 0; j < n_keys; ++j)
    rows[j] = cache.kv_row(layer, tile.keys != nullptr ? tile.keys[first_key + j] : first_key + j);
  own.block.reserve(kernels::mla_block_scratch(tile.n_pairs()));
  own.n_visible.resize(static_cast<std::size_t>(queries.n_lanes));
  // The tile's last row sees all of its keys, each row before it one fewer.
  for (int p = 0; p < queries.n_lanes; ++p) {
    const int row = std::min(p / tile.n_heads, tile.n_rows - 1);
    own.n_visible[p] = tile.n_keys - (tile.n_rows - 1 - row) - first_key;
  }
  const float* keys =
      tile.by_key() ? cache.key_blocks(layer) + static_cast<std::ptrdiff_t>(first_key) * c_.kv_row()
                    : nullptr;
  kernels::mla_block_cpu(
      m_.target, {.q = keys != nullptr ? queries.absorbed.data() : queries.transposed.data(),
                  .n_pairs = tile.n_pairs(),
                  .rows = rows,
                  .key_blocks = keys,
                  .n_keys = n_keys,
                  .n_visible = own.n_visible.data(),
                  .kv_lora = c_.kv_lora,
                  .rope = c_.qk_rope,
                  .scale = m_.attention_scale,
                  .first = first,
                  .state = state,
                  .scratch = own.block.data()});
}

// Finishes the softmax and takes the latents through W_v.
void CpuBackend::write_values(const CpuLayer& layer, const MlaTile& tile, MlaScratch& s) {
  const int stride = kernels::mla_latent_stride(c_.kv_lora);
  kernels::mla_finish_cpu(m_.target, tile.n_pairs(), c_.kv_lora, s.state());
  const float* x[kPairsPerTile];
  float* y[kPairsPerTile];
  for (int h = 0; h < tile.n_heads; ++h) {
    const int head = tile.first_head + h;
    for (int r = 0; r < tile.n_rows; ++r) {
      x[r] = &s.latent[static_cast<std::size_t>(r * tile.n_heads + h) * stride];
      y[r] = act(Act::kAttention, tile.first_row + r) + head * c_.v_head;
    }
    kernels::project_cpu(m_.target, {.w = &layer.value_up[head],
                                     .x = x,
                                     .y = y,
                                     .n_tokens = tile.n_rows,
                                     .first_block = 0,
                                     .last_block = layer.value_up[head].n_blocks(),
                                     .accumulate = false});
  }
}

void CpuBackend::mla_attention(int layer, bool sparse) {
  plan_mla_tiles(sparse);
  const int n_tiles = static_cast<int>(tiles_.size());
  int n_blocks = 0;
  for (const MlaTile& t : tiles_) n_blocks += t.n_blocks();
  if (n_tiles < pool_.n_threads() && n_blocks > n_tiles) {
    attend_by_block(layer);
    return;
  }
  const CpuLayer& l = m_.layers[layer];
  for_each(n_tiles, [&](Slot& slot, int i) {
    // The last tiles see the most keys: they go first, so that no thread is left with one alone.
    const MlaTile& tile = tiles_[n_tiles - 1 - i];
    prepare_queries(l, tile, slot.mla);
    for (int b = 0; b < tile.n_blocks(); ++b)
      attend_block(layer, tile, b, b == 0, slot.mla, slot.mla.state(), slot.mla);
    write_values(l, tile, slot.mla);
  });
}

// Few tiles of many keys: threads share out the blocks, and each tile's blocks are folded
// afterwards, in the order and by the formula in which one thread does it.
void CpuBackend::attend_by_block(int layer) {
  const CpuLayer& l = m_.layers[layer];
  const int n_tiles = static_cast<int>(tiles_.size());
  if (static_cast<int>(tile_scratch_.size()) < n_tiles)
    tile_scratch_.resize(static_cast<std::size_t>(n_tiles));
  block_work_.clear();
  for (int t = 0; t < n_tiles; ++t) {
    tiles_[t].first_work = static_cast<int>(block_work_.size());
    for (int b = 0; b < tiles_[t].n_blocks(); ++b) block_work_.emplace_back(t, b);
  }
  const int max_pairs = std::max(kPairsPerTile, c_.n_heads);
  const int max_lanes = kernels::mla_lanes(max_pairs);
  const std::size_t partial_size =
      2 * static_cast<std::size_t>(max_lanes) +
      static_cast<std::size_t>(max_pairs) *
          static_cast<std::size_t>(kernels::mla_latent_stride(c_.kv_lora));
  partials_.reserve(partial_size * block_work_.size());
  const auto partial = [&](int i) {
    float* p = &partials_[partial_size * static_cast<std::size_t>(i)];
    return kernels::MlaState{p, p + max_lanes, p + 2 * max_lanes};
  };
  pool_.parallel_for(n_tiles, [&](int t) { prepare_queries(l, tiles_[t], tile_scratch_[t]); });
  for_each(static_cast<int>(block_work_.size()), [&](Slot& slot, int i) {
    const auto [t, b] = block_work_[i];
    const kernels::MlaState state = b == 0 ? tile_scratch_[t].state() : partial(i);
    attend_block(layer, tiles_[t], b, true, tile_scratch_[t], state, slot.mla);
  });
  pool_.parallel_for(n_tiles, [&](int t) {
    const MlaTile& tile = tiles_[t];
    for (int b = 1; b < tile.n_blocks(); ++b)
      kernels::mla_merge_cpu(m_.target, tile.n_pairs(), c_.kv_lora, tile_scratch_[t].state(),
                             partial(tile.first_work + b));
    write_values(l, tile, tile_scratch_[t]);
  });
}

}  // namespace assay::engine
