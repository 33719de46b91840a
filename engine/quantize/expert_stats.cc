#include "engine/quantize/expert_stats.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/matrix_view.h"

namespace assay::engine {
namespace {

constexpr int kRowsPerItem = 24;

// silu(x) = x σ(x) and its derivative.
struct Silu {
  double value, slope;
};
Silu silu(float x) {
  const double s = 1 / (1 + std::exp(-static_cast<double>(x)));
  return {x * s, s * (1 + x * (1 - s))};
}

std::vector<float> column_energy(const Rows& x, int width) {
  std::vector<double> sum(static_cast<std::size_t>(width), 0.0);
  for (std::size_t i = 0; i < x.size(); ++i)
    sum[i % sum.size()] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return {sum.begin(), sum.end()};
}

}  // namespace

RowProduct::RowProduct(const Matrix& m, ThreadPool& pool, Stop* stop)
    : packed_(CpuMatrix::pack(arena_, m)), pool_(pool), stop_(stop) {}

Rows RowProduct::operator()(const Rows& x) const {
  const auto width = static_cast<std::size_t>(packed_.n_cols());
  const auto height = static_cast<std::size_t>(packed_.n_rows());
  const int n = static_cast<int>(x.size() / width);
  Rows out(static_cast<std::size_t>(n) * height);
  const kernels::CpuTarget target = kernels::usable_cpu_targets().front();
  pool_.parallel_for((n + kRowsPerItem - 1) / kRowsPerItem, [&](int item) {
    if (is_stopped(stop_)) return;
    const float* from[kRowsPerItem];
    float* to[kRowsPerItem];
    const int first = item * kRowsPerItem, n_rows = std::min(kRowsPerItem, n - first);
    for (int i = 0; i < n_rows; ++i) {
      from[i] = &x[static_cast<std::size_t>(first + i) * width];
      to[i] = &out[static_cast<std::size_t>(first + i) * height];
    }
    kernels::AlignedArray<float> scratch;
    if (packed_.vq() != nullptr) scratch.reserve(kernels::vq_scratch());
    packed_.multiply(target, {.x = from,
                              .y = to,
                              .n_tokens = n_rows,
                              .first_block = 0,
                              .last_block = packed_.n_blocks(),
                              .accumulate = false,
                              .scratch = scratch.data()});
  });
  return out;
}

Rows mlp_hidden(const MlpWeights& mlp, const Rows& x, ThreadPool& pool, Stop* stop) {
  const Rows gate = RowProduct(mlp.gate, pool, stop)(x);
  Rows hidden = RowProduct(mlp.up, pool, stop)(x);
  const auto width = static_cast<std::size_t>(mlp.up.n_rows);
  for (std::size_t first = 0; first < hidden.size() && !is_stopped(stop); first += width)
    for (std::size_t i = first; i < first + width; ++i)
      hidden[i] *= static_cast<float>(silu(gate[i]).value);
  return hidden;
}

Rows rms_normed(const std::vector<float>& x, int stride, int width, const Matrix& weight, float eps,
                Stop* stop) {
  const std::vector<float> by = to_floats(weight);
  Rows out;
  for (std::size_t first = 0; first < x.size() && !is_stopped(stop);
       first += static_cast<std::size_t>(stride)) {
    const std::span<const float> row = std::span(x).subspan(first, static_cast<std::size_t>(width));
    double square = 0;
    for (const float v : row) square += static_cast<double>(v) * static_cast<double>(v);
    const auto scale = static_cast<float>(1 / std::sqrt(square / width + static_cast<double>(eps)));
    for (std::size_t i = 0; i < row.size(); ++i) out.push_back(row[i] * scale * by[i]);
  }
  return out;
}

std::vector<ExpertRows> rows_by_expert(const MoeInputs& inputs, int n_experts, int top_k) {
  std::vector<ExpertRows> out(static_cast<std::size_t>(n_experts));
  for (std::size_t i = 0; i < inputs.expert.size(); ++i) {
    ExpertRows& e = out[static_cast<std::size_t>(inputs.expert[i])];
    e.row.push_back(static_cast<int>(i) / top_k);
    e.weight.push_back(inputs.weight[i]);
  }
  return out;
}

Rows gather(const Rows& x, int width, const ExpertRows& rows, bool weighted) {
  Rows out;
  out.reserve(rows.row.size() * static_cast<std::size_t>(width));
  for (std::size_t i = 0; i < rows.row.size(); ++i) {
    const float* from = &x[static_cast<std::size_t>(rows.row[i]) * static_cast<std::size_t>(width)];
    const float by = weighted ? rows.weight[i] : 1.0f;
    for (int c = 0; c < width; ++c) out.push_back(by * from[c]);
  }
  return out;
}

Result<std::vector<ExpertStats>> expert_stats(const ModelConfig& config,
                                              const LayerWeights& weights, const MoeInputs& inputs,
                                              ThreadPool& pool, Stop* stop) {
  const std::vector<ExpertRows> rows =
      rows_by_expert(inputs, config.n_experts, config.n_experts_per_token);
  const auto width = static_cast<std::size_t>(config.moe_intermediate);
  const double n_all = static_cast<double>(inputs.weight.size()) / config.n_experts_per_token;
  std::vector<ExpertStats> out;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    ASSAY_TRY_VOID(go_on(stop));
    const MlpWeights& w = weights.experts[e];
    ExpertStats s;
    s.n_tokens = rows[e].n();
    const Rows x = gather(inputs.x, config.hidden, rows[e], false);
    const Rows gate = RowProduct(w.gate, pool, stop)(x), up = RowProduct(w.up, pool, stop)(x);
    Rows hidden(gate.size());
    std::vector<double> by_gate(width, 0.0), by_up(width, 0.0);  // Σ (∂h/∂gate)², Σ (∂h/∂up)²
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const Silu a = silu(gate[i]);
      const double u = static_cast<double>(up[i]);
      hidden[i] = rows[e].weight[i / width] * static_cast<float>(a.value * u);
      by_gate[i % width] += u * a.slope * u * a.slope;
      by_up[i % width] += a.value * a.value;
    }
    const std::vector<float> down = to_floats(w.down);  // (hidden, width)
    std::vector<double> column(width, 0.0);             // squared norms of down's columns
    for (std::size_t i = 0; i < down.size(); ++i)
      column[i % width] += static_cast<double>(down[i]) * static_cast<double>(down[i]);
    const double n = std::max(1, s.n_tokens);
    for (std::size_t r = 0; r < width; ++r) {
      s.gate.row_weight.push_back(static_cast<float>(column[r] * by_gate[r] / n / n_all));
      s.up.row_weight.push_back(static_cast<float>(column[r] * by_up[r] / n / n_all));
    }
    s.down.row_weight.assign(static_cast<std::size_t>(config.hidden),
                             static_cast<float>(1 / n_all));
    s.gate.col_energy = s.up.col_energy =
        column_energy(gather(inputs.x, config.hidden, rows[e], true), config.hidden);
    s.down.col_energy = column_energy(hidden, config.moe_intermediate);
    out.push_back(std::move(s));
  }
  ASSAY_TRY_VOID(go_on(stop));  // the last expert's products may be unfinished
  return out;
}

}  // namespace assay::engine
