#include "engine/backend/shard.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "base/check.h"

namespace assay::engine {
namespace {

// Boundaries at multiples of `unit`, as even as they go.
std::vector<int> cut_at(int width, int unit, int n_ranks) {
  const std::int64_t n_units = (width + unit - 1) / unit;
  std::vector<int> cuts;
  for (int r = 0; r <= n_ranks; ++r)
    cuts.push_back(static_cast<int>(std::min<std::int64_t>(width, n_units * r / n_ranks * unit)));
  return cuts;
}

struct Parts {
  int smallest, largest;
};
Parts parts_of(const std::vector<int>& cuts) {
  Parts p = {cuts[1] - cuts[0], cuts[1] - cuts[0]};
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    p.smallest = std::min(p.smallest, cuts[i] - cuts[i - 1]);
    p.largest = std::max(p.largest, cuts[i] - cuts[i - 1]);
  }
  return p;
}

// "1, 2, 3 or 6"
std::string divisors_of(int n) {
  std::vector<int> divisors;
  for (int d = 1; d <= n; ++d)
    if (n % d == 0) divisors.push_back(d);
  return fmt::format("{}", fmt::join(divisors, ", "));
}

}  // namespace

std::vector<int> cut_columns(const std::vector<const Matrix*>& matrices, int width, int n_ranks) {
  // Kernels read whole 16-byte pieces of x and of dense rows where rows are of 8 values.
  constexpr int kPiece = 8;
  int finest = 1, coarsest = kPiece;
  for (const Matrix* m : matrices) {
    finest = std::lcm(finest, column_unit(*m));
    coarsest = std::lcm(std::lcm(coarsest, column_unit(*m)), column_group(*m));
  }
  for (int divisor = 1; divisor < coarsest / finest; ++divisor) {
    if (coarsest / finest % divisor != 0) continue;
    std::vector<int> cuts = cut_at(width, coarsest / divisor, n_ranks);
    const Parts parts = parts_of(cuts);
    const bool is_even = std::int64_t{4} * parts.largest * n_ranks <= std::int64_t{5} * width;
    if (parts.smallest > 0 && is_even) return cuts;
  }
  std::vector<int> cuts = cut_at(width, finest, n_ranks);
  return parts_of(cuts).smallest > 0 ? cuts : std::vector<int>{};
}

Result<Sharding> Sharding::plan(const ModelConfig& c, const ModelWeights& w, int n_ranks) {
  if (n_ranks < 1) return fail("tensor parallel size is {}, expected at least 1 (--tp)", n_ranks);
  if (c.n_heads % n_ranks != 0)
    return fail(
        "num_attention_heads is {}, which {} ranks cannot share evenly: ask for one of --tp {}",
        c.n_heads, n_ranks, divisors_of(c.n_heads));
  if (c.vocab < n_ranks)
    return fail("vocab_size is {}, too few for {} ranks: ask for fewer (--tp)", c.vocab, n_ranks);
  Sharding out;
  out.config_ = &c;
  out.weights_ = &w;
  out.n_ranks_ = n_ranks;
  out.vocab_ = cut_at(c.vocab, 1, n_ranks);

  const auto too_narrow = [&](const Matrix& down) {
    return fail(
        "{}: {} columns, in codewords of {}, cannot be shared by {} ranks: ask for fewer (--tp)",
        down.name, down.n_cols, column_unit(down), n_ranks);
  };
  std::vector<const Matrix*> downs;
  for (const LayerWeights& l : w.layers) {
    const int columns = c.n_heads / n_ranks * c.v_head;
    if (n_ranks > 1 && columns % column_unit(l.o) != 0)
      return fail(
          "{}: {} ranks have {} columns each, which codewords of {} do not fit: ask for another "
          "--tp",
          l.o.name, n_ranks, columns, column_unit(l.o));
    out.mlp_.push_back(cut_columns({&l.mlp.down}, l.mlp.down.n_cols, n_ranks));
    if (out.mlp_.back().empty()) return too_narrow(l.mlp.down);
    for (const MlpWeights& e : l.experts) downs.push_back(&e.down);
  }
  // One width for all of a rank's experts, which a kernel multiplies together.
  if (!downs.empty()) {
    out.experts_ = cut_columns(downs, c.moe_intermediate, n_ranks);
    if (out.experts_.empty())
      return too_narrow(**std::max_element(
          downs.begin(), downs.end(),
          [](const Matrix* a, const Matrix* b) { return column_unit(*a) < column_unit(*b); }));
  }
  return out;
}

MlpWeights Sharding::part_of(const MlpWeights& w, const Cuts& cuts, int rank, Owned& owned) {
  const auto r = static_cast<std::size_t>(rank);
  const int first = cuts[r], n = cuts[r + 1] - first;
  return {.gate = rows_of(w.gate, first, n, owned),
          .up = rows_of(w.up, first, n, owned),
          .down = columns_of(w.down, first, n, owned)};
}

LayerWeights Sharding::layer_of(std::size_t layer, int rank, Owned& owned) const {
  const ModelConfig& c = *config_;
  const LayerWeights& whole = weights_->layers[layer];
  const int heads = c.n_heads / n_ranks_, first = rank * heads;
  LayerWeights l = whole;
  l.q_b = rows_of(whole.q_b, first * c.qk_head(), heads * c.qk_head(), owned);
  l.kv_b =
      rows_of(whole.kv_b, first * (c.qk_nope + c.v_head), heads * (c.qk_nope + c.v_head), owned);
  l.o = columns_of(whole.o, first * c.v_head, heads * c.v_head, owned);
  l.mlp = part_of(whole.mlp, mlp_[layer], rank, owned);
  for (std::size_t e = 0; e < whole.experts.size(); ++e)
    l.experts[e] = part_of(whole.experts[e], experts_, rank, owned);
  return l;
}

Shard Sharding::of_rank(int rank) const {
  CHECK(rank >= 0 && rank < n_ranks_) << rank << " of " << n_ranks_;
  const auto r = static_cast<std::size_t>(rank);
  Shard out{.config = *config_, .weights = {}};
  out.config.n_heads /= n_ranks_;
  out.config.vocab = vocab_[r + 1] - vocab_[r];
  out.config.sampled_vocab = rank == 0 ? config_->vocab : 0;
  if (!experts_.empty()) out.config.moe_intermediate = experts_[r + 1] - experts_[r];
  if (!mlp_.empty() && config_->is_dense_layer(0))
    out.config.dense_intermediate = mlp_[0][r + 1] - mlp_[0][r];
  ModelWeights& w = out.weights;
  w.embed = weights_->embed;
  w.final_norm = weights_->final_norm;
  w.owned = weights_->owned;
  w.lm_head = rows_of(weights_->lm_head, vocab_[r], out.config.vocab, w.owned);
  for (std::size_t l = 0; l < weights_->layers.size(); ++l)
    w.layers.push_back(layer_of(l, rank, w.owned));
  return out;
}

}  // namespace assay::engine
