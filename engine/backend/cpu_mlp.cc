// Dense MLPs, the router and the experts of the cpu backend.
#include <algorithm>

#include "base/check.h"
#include "engine/backend/cpu_backend.h"
#include "kernels/moe_combine.h"
#include "kernels/project.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"

namespace assay::engine {
namespace {

// Tokens of one item: their hidden activations stay in a core's first or second-level cache.
constexpr int kTokensPerItem = 24;
// Rows whose expert outputs are held at once.
constexpr int kRowsPerPass = 512;

constexpr int kGroup = kernels::PackedMatrix::kGroupBlocks;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

void CpuBackend::mlp(int layer) {
  const CpuMlp& mlp = m_.layers[layer].mlp;
  const int width = mlp.width, n_blocks = mlp.n_units();
  expert_hidden_.reserve(static_cast<std::size_t>(n_) * static_cast<std::size_t>(width));
  const int n_token_parts = ceil_div(n_, kTokensPerItem);
  const int n_block_parts =
      n_token_parts >= 2 * pool_.n_threads() ? 1 : std::min(n_blocks, 2 * pool_.n_threads());
  for_each(n_token_parts * n_block_parts, [&](Slot& slot, int i) {
    const int b = i / n_token_parts, t = i % n_token_parts;
    const int first = n_ * t / n_token_parts, last = n_ * (t + 1) / n_token_parts;
    const int block = n_blocks * b / n_block_parts, end = n_blocks * (b + 1) / n_block_parts;
    slot.x.resize(static_cast<std::size_t>(last - first));
    for (int r = first; r < last; ++r) slot.x[r - first] = act(Act::kNormed, r);
    hidden_of(slot, mlp, slot.x.data(), last - first, block, end,
              &expert_hidden_[static_cast<std::size_t>(first) * width], width);
  });
  project_rows(mlp.down, expert_hidden_.data(), width, act(Act::kResidual, 0), c_.hidden, true);
}

void CpuBackend::route(int layer) {
  const CpuLayer& l = m_.layers[layer];
  const int n_experts = c_.n_experts, k = c_.n_experts_per_token;
  const auto n = static_cast<std::size_t>(n_);
  router_logits_.reserve(n * static_cast<std::size_t>(n_experts));
  expert_.resize(n * static_cast<std::size_t>(k));
  weight_.resize(expert_.size());
  route_margin_.resize(n);
  project_rows(l.router, act(Act::kNormed, 0), c_.hidden, router_logits_.data(), n_experts, false);
  constexpr int kRows = 64;
  pool_.parallel_for(ceil_div(n_, kRows), [&](int i) {
    for (int r = i * kRows; r < std::min(n_, (i + 1) * kRows); ++r)
      kernels::route_cpu(m_.target,
                         {.logits = &router_logits_[static_cast<std::size_t>(r) * n_experts],
                          .bias = l.router_bias.data(),
                          .n_experts = n_experts,
                          .top_k = k,
                          .normalise = c_.norm_topk_prob,
                          .scaling = c_.routed_scaling,
                          .expert = &expert_[static_cast<std::size_t>(r) * k],
                          .weight = &weight_[static_cast<std::size_t>(r) * k],
                          .margin = &route_margin_[r]});
  });
}

void CpuBackend::moe(int layer) {
  if (n_ == 1) {
    const CpuLayer& l = m_.layers[layer];
    l.is_dense_moe ? one_row_moe(l) : one_row_coded_moe(l);
    return;
  }
  for (int first = 0; first < n_; first += kRowsPerPass)
    many_rows_moe(m_.layers[layer], first, std::min(kRowsPerPass, n_ - first));
}

// One token: threads share out the rows of its experts' matrices, each thread whole runs of them,
// so that memory is read in long streams.
void CpuBackend::one_row_moe(const CpuLayer& l) {
  const int k = c_.n_experts_per_token, n_mlps = k + 1, hidden = c_.hidden;
  const auto mlp = [&](int i) -> const CpuMlp& {
    return i < k ? l.experts[static_cast<std::size_t>(expert_[i])] : l.mlp;
  };
  const std::size_t stride =
      static_cast<std::size_t>(std::max(l.mlp.width, l.experts.front().width) + 31) / 32 * 32;
  expert_hidden_.reserve(stride * static_cast<std::size_t>(n_mlps));
  const auto n_pieces = [&](int n_groups) {  // large experts are cut finer than there are threads
    return std::min(n_groups, pool_.n_threads() * (n_groups >= 64 ? 8 : 1));
  };

  // A group of packed blocks is two of gate and two of up. Groups of all experts in one row:
  const int groups = static_cast<int>(stride) / 32, all_groups = groups * n_mlps;
  const int n_up = n_pieces(all_groups);
  for_each(n_up, [&](Slot& slot, int i) {
    const float* x = act(Act::kNormed, 0);
    const int end = all_groups * (i + 1) / n_up;
    for (int g = all_groups * i / n_up; g < end;) {
      const int e = g / groups, from = g % groups, to = std::min(groups, from + end - g);
      const CpuMlp& m = mlp(e);
      const int n_blocks = m.gate_up.n_blocks() / 2;
      if (e + 1 < n_mlps) kernels::prefetch_block(mlp(e + 1).gate_up, 0);
      if (2 * from < n_blocks)
        hidden_of(slot, m, &x, 1, 2 * from, std::min(n_blocks, 2 * to),
                  &expert_hidden_[stride * static_cast<std::size_t>(e)], 0);
      g += to - from;
    }
  });

  const int n_blocks = l.mlp.down.n_blocks(), down_groups = ceil_div(n_blocks, kGroup);
  const int n_down = n_pieces(down_groups);
  for_each(n_down, [&](Slot& slot, int i) {
    const int first = down_groups * i / n_down * kGroup;
    const int last = std::min(n_blocks, down_groups * (i + 1) / n_down * kGroup);
    const int row = first * 16, n_rows = std::min(hidden, last * 16) - row;
    slot.hidden.reserve(static_cast<std::size_t>(n_mlps) * static_cast<std::size_t>(hidden));
    slot.x.resize(static_cast<std::size_t>(n_mlps));
    for (int e = 0; e < n_mlps; ++e) {
      const float* x = &expert_hidden_[stride * static_cast<std::size_t>(e)];
      float* y = &slot.hidden[static_cast<std::size_t>(e) * hidden];
      slot.x[e] = y + row;
      if (e + 1 < n_mlps) kernels::prefetch_block(*mlp(e + 1).down.dense(), first);
      kernels::project_cpu(m_.target, {.w = mlp(e).down.dense(),
                                       .x = &x,
                                       .y = &y,
                                       .n_tokens = 1,
                                       .first_block = first,
                                       .last_block = last,
                                       .accumulate = false});
    }
    kernels::moe_combine_cpu(m_.target, {.expert_out = slot.x.data(),
                                         .weight = weight_.data(),
                                         .top_k = k,
                                         .shared_out = slot.x[k],
                                         .n = n_rows,
                                         .residual = act(Act::kResidual, 0) + row});
  });
}

// Rows grouped by expert, so that an expert's weights serve all of its tokens.
void CpuBackend::many_rows_moe(const CpuLayer& l, int first_row, int n_rows) {
  const int k = c_.n_experts_per_token, slots_per_row = k + 1, hidden = c_.hidden;
  const int* expert = &expert_[static_cast<std::size_t>(first_row) * k];
  // Counting sort of (row, slot) by expert; the shared expert is number n_experts and has all rows.
  std::vector<int> first(static_cast<std::size_t>(c_.n_experts) + 2, 0);
  for (int i = 0; i < n_rows * k; ++i) ++first[expert[i] + 1];
  first[c_.n_experts + 1] = n_rows;
  for (std::size_t e = 1; e < first.size(); ++e) first[e] += first[e - 1];
  expert_pairs_.resize(static_cast<std::size_t>(n_rows) * slots_per_row);
  std::vector<int> next(first.begin(), first.end() - 1);
  for (int r = 0; r < n_rows; ++r) {
    for (int i = 0; i < k; ++i) expert_pairs_[next[expert[r * k + i]]++] = r * slots_per_row + i;
    expert_pairs_[next[c_.n_experts]++] = r * slots_per_row + k;
  }
  expert_tiles_.clear();
  for (int e = c_.n_experts; e >= 0; --e) {  // the shared expert, the largest, first
    const int n = first[e + 1] - first[e], n_tiles = ceil_div(n, kTokensPerItem);
    for (int t = 0; t < n_tiles; ++t) {
      const int begin = n * t / n_tiles, end = n * (t + 1) / n_tiles;
      expert_tiles_.push_back(
          {e < c_.n_experts ? &l.experts[e] : &l.mlp, first[e] + begin, end - begin});
    }
  }
  expert_out_.reserve(expert_pairs_.size() * static_cast<std::size_t>(hidden));
  for_each(static_cast<int>(expert_tiles_.size()),
           [&](Slot& slot, int i) { run_expert_tile(slot, expert_tiles_[i], first_row); });

  constexpr int kRows = 32;
  for_each(ceil_div(n_rows, kRows), [&](Slot& slot, int i) {
    slot.x.resize(static_cast<std::size_t>(slots_per_row));
    for (int r = i * kRows; r < std::min(n_rows, (i + 1) * kRows); ++r) {
      for (int s = 0; s < slots_per_row; ++s)
        slot.x[s] = &expert_out_[static_cast<std::size_t>(r * slots_per_row + s) * hidden];
      kernels::moe_combine_cpu(m_.target,
                               {.expert_out = slot.x.data(),
                                .weight = &weight_[static_cast<std::size_t>(first_row + r) * k],
                                .top_k = k,
                                .shared_out = slot.x[k],
                                .n = hidden,
                                .residual = act(Act::kResidual, first_row + r)});
    }
  });
}

void CpuBackend::run_expert_tile(Slot& slot, const ExpertTile& tile, int first_row) {
  const int slots_per_row = c_.n_experts_per_token + 1, width = tile.mlp->width;
  slot.x.resize(static_cast<std::size_t>(tile.n));
  slot.y.resize(static_cast<std::size_t>(tile.n));
  slot.hidden.reserve(static_cast<std::size_t>(tile.n) * static_cast<std::size_t>(width));
  for (int i = 0; i < tile.n; ++i)
    slot.x[i] = act(Act::kNormed, first_row + expert_pairs_[tile.first + i] / slots_per_row);
  hidden_of(slot, *tile.mlp, slot.x.data(), tile.n, 0, tile.mlp->n_units(), slot.hidden.data(),
            width);
  for (int i = 0; i < tile.n; ++i) {
    slot.x[i] = &slot.hidden[static_cast<std::size_t>(i) * width];
    slot.y[i] = &expert_out_[static_cast<std::size_t>(expert_pairs_[tile.first + i]) * c_.hidden];
  }
  tile.mlp->down.multiply(m_.target, {.x = slot.x.data(),
                                      .y = slot.y.data(),
                                      .n_tokens = tile.n,
                                      .first_block = 0,
                                      .last_block = tile.mlp->down.n_blocks(),
                                      .accumulate = false,
                                      .scratch = slot.vq.data()});
}

// hidden[t] = silu(gate x_t) · up x_t for the hidden values of the units [block, end).
void CpuBackend::hidden_of(Slot& slot, const CpuMlp& mlp, const float* const* x, int n_tokens,
                           int block, int end, float* hidden, std::ptrdiff_t stride) {
  if (!mlp.is_fused()) {
    coded_hidden_of(slot, mlp, x, n_tokens, block, end, hidden, stride);
    return;
  }
  const std::size_t width = static_cast<std::size_t>(mlp.gate_up.n_rows());
  slot.gate_up.reserve(width * static_cast<std::size_t>(n_tokens));
  std::array<float*, kTokensPerItem> y;
  CHECK(n_tokens <= kTokensPerItem) << n_tokens;
  for (int t = 0; t < n_tokens; ++t) y[t] = &slot.gate_up[width * static_cast<std::size_t>(t)];
  kernels::project_cpu(m_.target, {.w = &mlp.gate_up,
                                   .x = x,
                                   .y = y.data(),
                                   .n_tokens = n_tokens,
                                   .first_block = 2 * block,
                                   .last_block = 2 * end,
                                   .accumulate = false});
  const int n = std::min(mlp.width, end * 16) - block * 16;
  for (int t = 0; t < n_tokens; ++t)
    kernels::swiglu_in_turn_cpu(m_.target, y[t] + 32 * block, n, hidden + t * stride + 16 * block);
}

void CpuBackend::coded_hidden_of(Slot& slot, const CpuMlp& mlp, const float* const* x, int n_tokens,
                                 int unit, int end, float* hidden, std::ptrdiff_t stride) {
  CHECK(n_tokens <= kTokensPerItem) << n_tokens;
  const auto width = static_cast<std::size_t>(mlp.width);
  slot.gate_up.reserve(2 * width * static_cast<std::size_t>(n_tokens));
  std::array<float*, kTokensPerItem> gate, up;
  for (int t = 0; t < n_tokens; ++t) {
    gate[t] = &slot.gate_up[2 * width * static_cast<std::size_t>(t)];
    up[t] = gate[t] + width;
  }
  const int first_value = unit * mlp.unit(), end_value = std::min(mlp.width, end * mlp.unit());
  const auto blocks = [&](const CpuMatrix& w) {
    return std::pair{first_value / w.block_rows(), ceil_div(end_value, w.block_rows())};
  };
  if (mlp.gate.vq() != nullptr && mlp.up.vq() != nullptr) {
    const auto [g, g_end] = blocks(mlp.gate);
    const kernels::VqProduct both[] = {{mlp.gate.vq(), gate.data(), g, g_end},
                                       {mlp.up.vq(), up.data(), g, g_end}};
    kernels::vq_project_cpu(m_.target, {.products = both,
                                        .x = x,
                                        .n_tokens = n_tokens,
                                        .accumulate = false,
                                        .scratch = slot.vq.data()});
  } else {
    for (const auto& [w, y] : {std::pair{&mlp.gate, gate.data()}, std::pair{&mlp.up, up.data()}}) {
      const auto [b, b_end] = blocks(*w);
      w->multiply(m_.target, {.x = x,
                              .y = y,
                              .n_tokens = n_tokens,
                              .first_block = b,
                              .last_block = b_end,
                              .accumulate = false,
                              .scratch = slot.vq.data()});
    }
  }
  for (int t = 0; t < n_tokens; ++t)
    kernels::swiglu_cpu(m_.target, gate[t] + first_value, up[t] + first_value,
                        end_value - first_value, hidden + t * stride + first_value);
}

// One token, experts as codes: each thread has the same share of every expert's rows. Gate and up
// of all experts read one input, so their partial sums are made once for all.
void CpuBackend::one_row_coded_moe(const CpuLayer& l) {
  const int k = c_.n_experts_per_token, n_mlps = k + 1, hidden = c_.hidden;
  const auto mlp = [&](int i) -> const CpuMlp& {
    return i < k ? l.experts[static_cast<std::size_t>(expert_[i])] : l.mlp;
  };
  const auto stride = static_cast<std::size_t>(std::max(l.mlp.width, l.experts.front().width));
  expert_hidden_.reserve(stride * static_cast<std::size_t>(n_mlps));
  const int n_parts = pool_.n_threads();
  for_each(n_parts, [&](Slot& slot, int part) {
    const float* x = act(Act::kNormed, 0);
    slot.gate_up.reserve(2 * stride * static_cast<std::size_t>(n_mlps));
    slot.y.resize(2 * static_cast<std::size_t>(n_mlps));
    slot.products.clear();
    const auto units = [&](const CpuMlp& m) {
      return std::pair{m.n_units() * part / n_parts, m.n_units() * (part + 1) / n_parts};
    };
    const auto is_vq = [](const CpuMlp& m) {
      return m.gate.vq() != nullptr && m.up.vq() != nullptr;
    };
    for (int e = 0; e < n_mlps; ++e) {
      const auto [first, end] = units(mlp(e));
      if (first == end || !is_vq(mlp(e))) continue;
      float** y = &slot.y[2 * static_cast<std::size_t>(e)];
      y[0] = &slot.gate_up[2 * stride * static_cast<std::size_t>(e)];
      y[1] = y[0] + stride;
      slot.products.push_back({mlp(e).gate.vq(), y, first, end});
      slot.products.push_back({mlp(e).up.vq(), y + 1, first, end});
    }
    kernels::vq_project_cpu(m_.target, {.products = slot.products,
                                        .x = &x,
                                        .n_tokens = 1,
                                        .accumulate = false,
                                        .scratch = slot.vq.data()});
    for (int e = 0; e < n_mlps; ++e) {
      const CpuMlp& m = mlp(e);
      const auto [first, end] = units(m);
      if (first == end || !is_vq(m)) continue;
      float* const* y = &slot.y[2 * static_cast<std::size_t>(e)];
      const int from = first * m.unit(), n = std::min(m.width, end * m.unit()) - from;
      kernels::swiglu_cpu(m_.target, y[0] + from, y[1] + from, n,
                          &expert_hidden_[stride * static_cast<std::size_t>(e)] + from);
    }
    for (int e = 0; e < n_mlps; ++e) {  // these reuse gate_up
      const auto [first, end] = units(mlp(e));
      if (first < end && !is_vq(mlp(e)))
        hidden_of(slot, mlp(e), &x, 1, first, end,
                  &expert_hidden_[stride * static_cast<std::size_t>(e)], 0);
    }
  });

  // Parts of the output begin at whole blocks of every form.
  constexpr int kRows = kernels::PackedVq::kBlockRows;
  const int n_chunks = ceil_div(hidden, kRows), n_down = std::min(n_chunks, pool_.n_threads());
  for_each(n_down, [&](Slot& slot, int part) {
    const int row = n_chunks * part / n_down * kRows;
    const int end = std::min(hidden, n_chunks * (part + 1) / n_down * kRows);
    slot.hidden.reserve(static_cast<std::size_t>(n_mlps) * static_cast<std::size_t>(hidden));
    slot.x.resize(static_cast<std::size_t>(n_mlps));
    for (int e = 0; e < n_mlps; ++e) {
      const float* x = &expert_hidden_[stride * static_cast<std::size_t>(e)];
      float* y = &slot.hidden[static_cast<std::size_t>(e) * static_cast<std::size_t>(hidden)];
      slot.x[e] = y + row;
      const CpuMatrix& down = mlp(e).down;
      down.multiply(m_.target, {.x = &x,
                                .y = &y,
                                .n_tokens = 1,
                                .first_block = row / down.block_rows(),
                                .last_block = ceil_div(end, down.block_rows()),
                                .accumulate = false,
                                .scratch = slot.vq.data()});
    }
    kernels::moe_combine_cpu(m_.target, {.expert_out = slot.x.data(),
                                         .weight = weight_.data(),
                                         .top_k = k,
                                         .shared_out = slot.x[k],
                                         .n = end - row,
                                         .residual = act(Act::kResidual, 0) + row});
  });
}

}  // namespace assay::engine
