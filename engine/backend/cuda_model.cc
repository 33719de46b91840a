#include "engine/backend/cuda_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <new>
#include <set>

#include "base/check.h"
#include "engine/backend/matrix_view.h"
#include "kernels/current_cuda_device.h"
#include "kernels/gemm_cuda.h"
#include "kernels/indexer_cuda.h"
#include "kernels/layer_cuda.h"
#include "kernels/mla_attention_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/sample_cuda.h"

namespace assay::engine {
namespace {

DeviceMatrix upload(const Matrix& m, kernels::DeviceWeights& memory) {
  if (m.empty()) return {};
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) return memory.add(*vq);
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes)) return memory.add(*scaled);
  return memory.add(view(m));
}

const float* upload_floats(const Matrix& m, kernels::DeviceWeights& memory) {
  return m.empty() ? nullptr : memory.add(to_floats(m));
}

// A layer's experts as one list, where they are all VQ, and how they are laid out then.
kernels::UnitPlan unit_plan(const LayerWeights& l, int top_k, kernels::MoeLayout layout) {
  std::vector<kernels::VqMatrix> experts;
  for (const MlpWeights& e : l.experts)
    for (const Matrix* m : {&e.gate, &e.up, &e.down}) {
      const auto* vq = std::get_if<kernels::VqMatrix>(&m->codes);
      if (vq == nullptr) return {};
      experts.push_back(*vq);
    }
  if (experts.empty()) return {};
  return kernels::plan_moe_units(experts, top_k, layout);
}
// Of every expert gate, up and down.
std::vector<DeviceMatrix> upload_experts(const std::vector<MlpWeights>& experts,
                                         const kernels::UnitPlan& plan,
                                         kernels::DeviceWeights& memory) {
  std::vector<DeviceMatrix> out;
  std::vector<kernels::DeviceWeights::ToUnits> in_units;
  for (const MlpWeights& e : experts)
    for (int part = 0; part < 3; ++part) {
      const Matrix& m = part == 0 ? e.gate : part == 1 ? e.up : e.down;
      if (plan.is_in_units()) {
        const auto& vq = std::get<kernels::VqMatrix>(m.codes);
        in_units.push_back({&vq, plan.of(part).form(vq)});
      } else {
        out.push_back(upload(m, memory));
      }
    }
  return in_units.empty() ? out : memory.add(in_units);
}

CudaMlp upload(const MlpWeights& w, kernels::DeviceWeights& memory) {
  return {upload(w.gate, memory), upload(w.up, memory), upload(w.down, memory)};
}

std::size_t bytes_of(const Matrix& m) {
  if (m.empty()) return 0;
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes)) return kernels::device_bytes(*vq);
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes))
    return kernels::device_bytes(*scaled);
  return kernels::device_bytes(view(m));
}

std::size_t unit_bytes_of(const Matrix& m, const kernels::UnitPlan& plan, int part) {
  const auto& vq = std::get<kernels::VqMatrix>(m.codes);
  return kernels::unit_bytes(vq, plan.of(part).form(vq));
}

std::size_t bytes_as_floats(const Matrix& m) {
  return sizeof(float) * static_cast<std::size_t>(m.n_rows) * static_cast<std::size_t>(m.n_cols);
}

// What all weights take on the device: codes, values and scales as they are, vectors and kv_b as
// floats, and of each layer its experts as they are planned and a table of them. Codebooks are few
// and may be more.
std::size_t bytes_of(const ModelWeights& weights, int top_k, kernels::MoeLayout layout) {
  constexpr std::size_t kGap = kernels::DeviceWeights::kAlignment,
                        kCodebooks = std::size_t{1} << 20;
  std::size_t total = kCodebooks;
  for (const Matrix* m : all_matrices(weights))
    total += 2 * kGap + (m->n_rows == 1 || m->n_cols == 1 ? bytes_as_floats(*m) : bytes_of(*m));
  for (const LayerWeights& l : weights.layers) {
    total += bytes_as_floats(l.kv_b) - bytes_of(l.kv_b) + 2 * kGap +
             3 * l.experts.size() * sizeof(DeviceMatrix);
    const kernels::UnitPlan plan = unit_plan(l, top_k, layout);
    if (!plan.is_in_units()) continue;
    for (const MlpWeights& e : l.experts)
      total += unit_bytes_of(e.gate, plan, 0) - bytes_of(e.gate) + unit_bytes_of(e.up, plan, 1) -
               bytes_of(e.up) + unit_bytes_of(e.down, plan, 2) - bytes_of(e.down);
  }
  return total;
}

kernels::MoeLayout layout_on(const kernels::CudaDevice& device, const ModelWeights& weights,
                             int top_k) {
  using enum kernels::MoeLayout;
  const std::size_t n_bytes = bytes_of(weights, top_k, kFastest);
  if (leave_a_tenth(n_bytes, device.total_bytes)) return kFastest;
  return bytes_of(weights, top_k, kSmallest) < n_bytes ? kSmallest : kFastest;
}

std::int64_t signed_bytes(const kernels::DeviceWeights& memory) {
  return static_cast<std::int64_t>(memory.bytes());
}

// Whether the kernels take a model of these widths.
Result<void> fit_kernels(const ModelConfig& config) {
  if (config.kv_lora > kernels::kMaxKvLoraCuda || config.qk_rope > kernels::kMaxRopeCuda)
    return fail("kv_lora_rank is {} and qk_rope_head_dim {}, backend cuda takes at most {} and {}",
                config.kv_lora, config.qk_rope, kernels::kMaxKvLoraCuda, kernels::kMaxRopeCuda);
  if (config.n_experts > kernels::kMaxExpertsCuda ||
      config.n_experts_per_token > kernels::kMaxTopExpertsCuda)
    return fail("{} experts, {} a token; backend cuda takes at most {} and {}", config.n_experts,
                config.n_experts_per_token, kernels::kMaxExpertsCuda, kernels::kMaxTopExpertsCuda);
  if (config.n_sampled() > kernels::kMaxVocabCuda)
    return fail("vocab_size is {}, backend cuda takes at most {}", config.n_sampled(),
                kernels::kMaxVocabCuda);
  if (std::max(config.hidden, config.q_lora) > kernels::kMaxNormCuda)
    return fail("hidden_size is {} and q_lora_rank {}, backend cuda takes at most {}",
                config.hidden, config.q_lora, kernels::kMaxNormCuda);
  if (config.index_head_dim > kernels::kMaxIndexDimCuda)
    return fail("index_head_dim is {}, backend cuda takes at most {}", config.index_head_dim,
                kernels::kMaxIndexDimCuda);
  return {};
}

}  // namespace

CudaModel::CudaModel(const ModelConfig& config, const ModelWeights& w, const CudaKernel& kernel)
    : c(config),
      how(kernel),
      rope(config.rope_theta, config.qk_rope),
      device(kernels::cuda_device()),
      layout(layout_on(device, w, config.n_experts_per_token)),
      promise(kernels::current_cuda_device()),
      memory(bytes_of(w, config.n_experts_per_token, layout)) {
  embed = upload(w.embed, memory);
  // A tied head is the embedding.
  if (w.lm_head.name != w.embed.name) embed_bytes_ = signed_bytes(memory);
  lm_head = w.lm_head.name == w.embed.name ? embed : upload(w.lm_head, memory);
  final_norm = upload_floats(w.final_norm, memory);
  for (const LayerWeights& layer : w.layers) layers.push_back(upload_layer(layer));
  memory.finish();
}

CudaLayer CudaModel::upload_layer(const LayerWeights& w) {
  CudaLayer l;
  l.input_norm = upload_floats(w.input_norm, memory);
  l.q_a_norm = upload_floats(w.q_a_norm, memory);
  l.kv_a_norm = upload_floats(w.kv_a_norm, memory);
  l.post_attention_norm = upload_floats(w.post_attention_norm, memory);
  l.q_a = upload(w.q_a, memory);
  l.q_b = upload(w.q_b, memory);
  l.kv_a = upload(w.kv_a, memory);
  l.o = upload(w.o, memory);
  upload_kv_b(w.kv_b, l);
  std::int64_t before = signed_bytes(memory);
  l.index_q = upload(w.indexer.wq_b, memory);
  l.index_k = upload(w.indexer.wk, memory);
  l.index_weights = upload(w.indexer.weights_proj, memory);
  l.index_norm_weight = upload_floats(w.indexer.k_norm_weight, memory);
  l.index_norm_bias = upload_floats(w.indexer.k_norm_bias, memory);
  index_bytes_ += signed_bytes(memory) - before;
  l.mlp = upload(w.mlp, memory);
  l.router = upload(w.router, memory);
  l.router_bias = upload_floats(w.router_bias, memory);
  before = signed_bytes(memory);
  const kernels::UnitPlan plan = unit_plan(w, c.n_experts_per_token, layout);
  const std::vector<DeviceMatrix> experts = upload_experts(w.experts, plan, memory);
  l.n_experts = static_cast<int>(w.experts.size());
  if (!experts.empty()) {
    l.experts = memory.add_array(experts);
    l.moe = kernels::MoePlan(plan, experts);
    routed_bytes_ += signed_bytes(memory) - before;
    l.experts_copied = std::all_of(experts.begin(), experts.end(), kernels::is_copied);
  }
  for (const DeviceMatrix& m :
       {l.q_a, l.q_b, l.kv_a, l.o, l.index_q, l.index_k, l.mlp.gate, l.mlp.up, l.mlp.down})
    count_slow(m, true);
  for (const DeviceMatrix& m : experts) count_slow(m, false);
  for (const DeviceMatrix* m : {&l.q_a, &l.q_b, &l.kv_a, &l.o, &l.index_q, &l.index_k,
                                &l.index_weights, &l.router, &l.mlp.down})
    if (m->n_rows > 0 && kernels::project_is_by_piece(*m)) ++n_by_piece_;
  if (l.mlp.gate.n_rows > 0 && kernels::swiglu_is_by_piece(l.mlp.gate, l.mlp.up)) n_by_piece_ += 2;
  return l;
}

void CudaModel::count_slow(const DeviceMatrix& m, bool is_dense) {
  if (m.n_rows == 0) return;
  if (kernels::is_decoded_by_value(m)) ++n_by_value_;
  if (is_dense && m.kind == DeviceMatrix::Kind::kGptq && !m.in_units()) ++n_by_row_;
}

std::string CudaModel::kernel() const {
  std::set<std::string> designs;
  for (const CudaLayer& l : layers)
    if (l.n_experts > 0) designs.insert(l.moe.text());
  std::string chunks;
  if (how.bf16_chunks) chunks = ", chunks: mma";
  if (how.bf16_chunks && n_by_value_ > 0)
    chunks += fmt::format(" ({} matrices value by value)", n_by_value_);
  std::string dense;
  if (n_by_row_ > 0) dense = fmt::format(", {} GPTQ matrices by row", n_by_row_);
  if (n_by_piece_ > 0) dense += fmt::format(", {} matrices by the piece", n_by_piece_);
  std::string indexer;
  if (c.index_topk > 0)
    indexer =
        fmt::format(", indexer: {}", kernels::index_design(c.index_n_heads, c.index_head_dim));
  return fmt::format("sm_{}{} {}, {}{}{}, attention: {}{}{}{}{}", device.major, device.minor,
                     how.bf16_chunks ? "bf16" : "f32", how.records_steps ? "graph" : "stream",
                     chunks, dense, kernels::mla_design(c.n_heads, c.kv_lora, c.qk_rope), indexer,
                     designs.empty() ? "" : ", experts: ", fmt::join(designs, " and "),
                     layout == kernels::MoeLayout::kSmallest ? ", laid out for memory" : "");
}

// Sliced by head, and the key part transposed, so that queries meet the latent itself.
void CudaModel::upload_kv_b(const Matrix& kv_b, CudaLayer& l) {
  const auto nope = static_cast<std::size_t>(c.qk_nope), v = static_cast<std::size_t>(c.v_head),
             lora = static_cast<std::size_t>(c.kv_lora),
             heads = static_cast<std::size_t>(c.n_heads);
  std::vector<float> keys(heads * lora * nope), values(heads * v * lora);
  memory.pool().parallel_for(c.n_heads, [&](int i) {
    const auto h = static_cast<std::size_t>(i);
    std::vector<float> row(lora);
    for (std::size_t d = 0; d < nope + v; ++d) {
      row_to_floats(kv_b, i * static_cast<int>(nope + v) + static_cast<int>(d), row.data());
      if (d < nope)
        for (std::size_t j = 0; j < lora; ++j) keys[(h * lora + j) * nope + d] = row[j];
      else
        std::copy(row.begin(), row.end(),
                  values.begin() + static_cast<std::ptrdiff_t>((h * v + d - nope) * lora));
    }
  });
  l.absorbed_k = memory.add(keys);
  l.value_up = memory.add(values);
}

Result<std::shared_ptr<const BackendModel>> load_cuda_model(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            std::string_view kernel) {
  const auto* how = std::find_if(std::begin(kCudaKernels), std::end(kCudaKernels),
                                 [&](const CudaKernel& k) { return k.name == kernel; });
  if (kernel.empty()) how = std::begin(kCudaKernels);
  if (how == std::end(kCudaKernels))
    return fail(
        "backend cuda has no kernel '{}': expected graph (the default: decode steps are recorded "
        "and replayed), stream (launch by launch), or bf16 or bf16-stream (the same, with prompt "
        "chunks on tensor cores)",
        kernel);
  if (kernels::n_cuda_devices() == 0)
    return fail(
        "no CUDA device here (no driver, or no GPU): run on a machine with one, or with --backend "
        "cpu");
  if (!kernels::has_code_for_cuda_device()) {
    const kernels::CudaDevice now = kernels::cuda_device();
    return fail(
        "this assay has no code for {} (compute capability {}.{}): build it again with that in "
        "CMAKE_CUDA_ARCHITECTURES (by default 9.0 and 12.0: H100, H200, RTX PRO 6000), or run with "
        "--backend cpu",
        now.name, now.major, now.minor);
  }
  ASSAY_TRY_VOID(fit_kernels(config));
  const auto fit = [&] {
    const kernels::CudaDevice now = kernels::cuda_device();
    const kernels::MoeLayout layout = layout_on(now, weights, config.n_experts_per_token);
    return fit_weights(bytes_of(weights, config.n_experts_per_token, layout),
                       {now.name, now.free_bytes, now.total_bytes,
                        MemoryPromise::bytes_on(kernels::current_cuda_device())});
  };
  ASSAY_TRY_VOID(fit());
  try {
    return std::make_shared<const CudaModel>(config, weights, *how);
  } catch (const kernels::NoPinnedMemory& e) {
    return no_pinned_memory(e.n_bytes);
  } catch (const std::bad_alloc&) {
    ASSAY_TRY_VOID(fit());  // another process has taken it meanwhile
    throw;                  // it was the host's
  }
}

}  // namespace assay::engine
