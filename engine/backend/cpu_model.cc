#include "engine/backend/cpu_model.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/cpu_backend.h"
#include "engine/backend/matrix_view.h"
#include "kernels/route.h"

namespace assay::engine {
namespace {

using kernels::PackedMatrix;

CpuMlp pack_mlp(CpuPacker& p, const MlpWeights& w) {
  CpuMlp m;
  if (w.gate.is_dense() && w.up.is_dense()) {
    m.gate_up = p.pack_in_turn(w.gate, w.up);
  } else {
    m.gate = p.pack(w.gate);
    m.up = p.pack(w.up);
  }
  m.down = p.pack(w.down);
  m.width = w.gate.n_rows;
  return m;
}

CpuLayer pack_layer(CpuPacker& p, const ModelConfig& c, const LayerWeights& w) {
  CpuLayer l;
  l.input_norm = to_floats(w.input_norm);
  l.q_a_norm = to_floats(w.q_a_norm);
  l.kv_a_norm = to_floats(w.kv_a_norm);
  l.post_attention_norm = to_floats(w.post_attention_norm);
  l.q_a = p.pack(w.q_a);
  l.q_b = p.pack(w.q_b);
  l.kv_a = p.pack(w.kv_a);
  l.o = p.pack(w.o);
  const CpuPacker::KvUp& kv_up = p.pack_kv_up(c, w.kv_b);
  l.key_up = kv_up.key;
  l.value_up = kv_up.value;
  if (!w.indexer.wk.empty()) {
    l.index_q = p.pack(w.indexer.wq_b);
    l.index_k = p.pack(w.indexer.wk);
    l.index_weights = p.pack(w.indexer.weights_proj);
    l.index_norm_weight = to_floats(w.indexer.k_norm_weight);
    l.index_norm_bias = to_floats(w.indexer.k_norm_bias);
  }
  if (!w.mlp.gate.empty()) l.mlp = pack_mlp(p, w.mlp);
  if (!w.router.empty()) {
    l.router = p.pack(w.router);
    l.router_bias = to_floats(w.router_bias);
  }
  for (const MlpWeights& expert : w.experts) l.experts.push_back(pack_mlp(p, expert));
  l.is_dense_moe = l.mlp.is_dense();
  for (const CpuMlp& expert : l.experts) l.is_dense_moe = l.is_dense_moe && expert.is_dense();
  return l;
}

std::size_t bytes_of(const CpuLayer& l) {
  std::size_t total = l.mlp.bytes();
  for (const CpuMatrix* m :
       {&l.q_a, &l.q_b, &l.kv_a, &l.o, &l.index_q, &l.index_k, &l.index_weights, &l.router})
    total += m->bytes();
  for (const auto* per_head : {&l.key_up, &l.value_up})
    for (const PackedMatrix& m : *per_head) total += m.bytes();
  for (const CpuMlp& m : l.experts) total += m.bytes();
  return total;
}

}  // namespace

CpuModel::CpuModel(const ModelConfig& c, const ModelWeights& weights, kernels::CpuTarget t,
                   std::shared_ptr<CpuPacker> p)
    : config(c),
      packer(std::move(p)),
      target(t),
      rope(c.rope_theta, c.qk_rope),
      attention_scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.qk_head())))),
      embed(view(weights.embed)),
      final_norm(to_floats(weights.final_norm)),
      lm_head(packer->pack(weights.lm_head)),
      owned(weights.owned) {
  weight_bytes_ = lm_head.bytes();
  for (const LayerWeights& w : weights.layers) {
    layers.push_back(pack_layer(*packer, c, w));
    weight_bytes_ += bytes_of(layers.back());
  }
}

Result<std::unique_ptr<Backend>> CpuModel::new_executor(int n_threads, const StepLimits&) const {
  return std::make_unique<CpuBackend>(shared_from_this(), n_threads);
}

Result<std::shared_ptr<const BackendModel>> CpuModel::with(const ModelConfig& other,
                                                           const ModelWeights& weights) const {
  return std::make_shared<const CpuModel>(other, weights, target, packer);
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
      return std::make_shared<const CpuModel>(config, weights, entry.target,
                                              std::make_shared<CpuPacker>());
  }
  return fail(
      "backend cpu cannot run kernel '{}' here: this machine runs {} (of {}); graph, stream, bf16 "
      "and bf16-stream are of --backend cuda",
      kernel, here, known);
}

}  // namespace assay::engine
