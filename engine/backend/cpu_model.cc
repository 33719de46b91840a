#include "engine/backend/cpu_model.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/cpu_backend.h"
#include "kernels/route.h"

namespace assay::engine {
namespace {

using kernels::PackedMatrix;
using kernels::WeightMatrix;
using kernels::WeightType;

WeightMatrix view(const Matrix& m) {
  const WeightType type = m.dtype == DType::kBf16  ? WeightType::kBf16
                          : m.dtype == DType::kF16 ? WeightType::kF16
                                                   : WeightType::kF32;
  return {m.data, type, m.n_rows, m.n_cols};
}

WeightMatrix rows_of(const WeightMatrix& w, int first, int n) {
  const std::int64_t bytes = w.type == WeightType::kF32 ? 4 : 2;
  return {static_cast<const std::byte*>(w.data) + first * bytes * w.n_cols, w.type, n, w.n_cols};
}

std::vector<float> to_floats(const Matrix& m) {
  const WeightMatrix w = view(m);
  std::vector<float> out(static_cast<std::size_t>(m.n_rows) * static_cast<std::size_t>(m.n_cols));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = kernels::weight_at(w, static_cast<std::int64_t>(i));
  return out;
}

CpuMlp pack_mlp(kernels::WeightArena& a, const MlpWeights& w) {
  return {.gate_up = PackedMatrix::pack_in_turn(a, view(w.gate), view(w.up)),
          .down = PackedMatrix::pack(a, view(w.down)),
          .width = w.gate.n_rows};
}

CpuLayer pack_layer(kernels::WeightArena& a, const ModelConfig& c, const LayerWeights& w) {
  CpuLayer l;
  l.input_norm = to_floats(w.input_norm);
  l.q_a_norm = to_floats(w.q_a_norm);
  l.kv_a_norm = to_floats(w.kv_a_norm);
  l.post_attention_norm = to_floats(w.post_attention_norm);
  l.q_a = PackedMatrix::pack(a, view(w.q_a));
  l.q_b = PackedMatrix::pack(a, view(w.q_b));
  l.kv_a = PackedMatrix::pack(a, view(w.kv_a));
  l.o = PackedMatrix::pack(a, view(w.o));
  const WeightMatrix kv_b = view(w.kv_b);
  for (int h = 0; h < c.n_heads; ++h) {
    const int first = h * (c.qk_nope + c.v_head);
    l.key_up.push_back(PackedMatrix::pack_transposed(a, rows_of(kv_b, first, c.qk_nope)));
    l.value_up.push_back(PackedMatrix::pack(a, rows_of(kv_b, first + c.qk_nope, c.v_head)));
  }
  if (!w.indexer.wk.empty()) {
    l.index_q = PackedMatrix::pack(a, view(w.indexer.wq_b));
    l.index_k = PackedMatrix::pack(a, view(w.indexer.wk));
    l.index_weights = PackedMatrix::pack(a, view(w.indexer.weights_proj));
    l.index_norm_weight = to_floats(w.indexer.k_norm_weight);
    l.index_norm_bias = to_floats(w.indexer.k_norm_bias);
  }
  l.mlp = pack_mlp(a, w.mlp);
  if (!w.router.empty()) {
    l.router = PackedMatrix::pack(a, view(w.router));
    l.router_bias = to_floats(w.router_bias);
  }
  for (const MlpWeights& expert : w.experts) l.experts.push_back(pack_mlp(a, expert));
  return l;
}

std::size_t bytes_of(const CpuMlp& m) { return m.gate_up.bytes() + m.down.bytes(); }

std::size_t bytes_of(const CpuLayer& l) {
  std::size_t total = bytes_of(l.mlp);
  for (const PackedMatrix* m :
       {&l.q_a, &l.q_b, &l.kv_a, &l.o, &l.index_q, &l.index_k, &l.index_weights, &l.router})
    total += m->bytes();
  for (const auto* per_head : {&l.key_up, &l.value_up})
    for (const PackedMatrix& m : *per_head) total += m.bytes();
  for (const CpuMlp& m : l.experts) total += bytes_of(m);
  return total;
}

}  // namespace

CpuModel::CpuModel(const ModelConfig& c, const ModelWeights& weights, kernels::CpuTarget t)
    : config(c),
      target(t),
      rope(c.rope_theta, c.qk_rope),
      attention_scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.qk_head())))),
      embed(view(weights.embed)),
      final_norm(to_floats(weights.final_norm)),
      lm_head(PackedMatrix::pack(arena, view(weights.lm_head))) {
  weight_bytes_ = lm_head.bytes();
  for (const LayerWeights& w : weights.layers) {
    layers.push_back(pack_layer(arena, c, w));
    weight_bytes_ += bytes_of(layers.back());
  }
}

std::unique_ptr<Backend> CpuModel::new_executor(int n_threads) const {
  return std::make_unique<CpuBackend>(shared_from_this(), n_threads);
}

Result<std::shared_ptr<const BackendModel>> load_cpu_model(const ModelConfig& config,
                                                           const ModelWeights& weights,
                                                           std::string_view kernel) {
  const std::vector<kernels::CpuTarget> usable = kernels::usable_cpu_targets();
  if (usable.empty())
    return fail(
        "backend cpu needs a processor with AVX2 and FMA, and this one has neither that nor "
        "AVX-512: use --backend reference");
  if (config.n_experts > kernels::kMaxCpuExperts)
    return fail("backend cpu takes at most {} experts, the model has {}: use --backend reference",
                kernels::kMaxCpuExperts, config.n_experts);
  std::string known, here;
  for (const kernels::CpuTargetEntry& entry : kernels::kCpuTargets) {
    const bool runs = std::find(usable.begin(), usable.end(), entry.target) != usable.end();
    known += fmt::format("{}{}", known.empty() ? "" : ", ", entry.name);
    if (runs) here += fmt::format("{}{}", here.empty() ? "" : ", ", entry.name);
    if (runs && (kernel.empty() || kernel == entry.name))
      return std::make_shared<const CpuModel>(config, weights, entry.target);
  }
  return fail("backend cpu cannot run kernel '{}' here: this machine runs {} (of {})", kernel, here,
              known);
}

}  // namespace assay::engine
