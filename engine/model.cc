#include "engine/model.h"

#include <array>

#include "engine/backend/tensor_parallel.h"
#include "engine/checkpoint/inspect.h"

namespace assay::engine {
namespace {

struct BackendEntry {
  std::string_view name;
  RankKind kind;
};
constexpr std::array<BackendEntry, 3> kBackends = {
    {{"cpu", {load_cpu_model, new_thread_comms}},
     {"cuda", {load_cuda_model, new_nccl_comms}},
     {"reference", {load_reference_model, new_thread_comms}}}};

Result<RankKind> find_backend(std::string_view name) {
  for (const BackendEntry& entry : kBackends)
    if (entry.name == name) return entry.kind;
  return fail("unknown backend '{}', expected one of: cpu, cuda, reference", name);
}

Result<std::shared_ptr<const BackendModel>> load_backend(const RankKind& kind,
                                                         const ModelConfig& config,
                                                         const ModelWeights& weights,
                                                         const EngineOptions& options) {
  if (options.tensor_parallel == 1) return kind.load(config, weights, options.kernel);
  return load_tensor_parallel_model(kind, config, weights, options.kernel, options.tensor_parallel);
}

}  // namespace

Result<std::shared_ptr<const LoadedModel>> load_model(const std::filesystem::path& dir,
                                                      const EngineOptions& options,
                                                      const LoadedModel* like) {
  ASSAY_TRY(const RankKind kind, find_backend(options.backend));
  ASSAY_TRY(Checkpoint opened, Checkpoint::open(dir));
  const auto kept = std::make_shared<const Checkpoint>(std::move(opened));
  const Checkpoint& checkpoint = *kept;
  const ModelConfig& config = checkpoint.config();
  ASSAY_TRY(const GenerationConfig generation, load_generation_config(dir, config));
  ASSAY_TRY(text::Tokenizer tokenizer, text::Tokenizer::load(dir / "tokenizer.json"));
  if (tokenizer.vocab_size() > config.vocab)
    return fail(
        "{}: tokenizer.json has ids up to {}, but config.json's vocab_size is {}: the two do not "
        "belong together",
        dir.string(), tokenizer.vocab_size() - 1, config.vocab);
  ASSAY_TRY(text::ChatTemplate chat_template, text::ChatTemplate::load(dir));
  ASSAY_TRY(ModelWeights weights, bind_weights(checkpoint, options.check_finite));
  ASSAY_TRY(const CheckpointSummary summary, inspect(checkpoint, options.cache_dir));
  ASSAY_TRY(auto backend, like != nullptr ? like->backend->with(config, weights)
                                          : load_backend(kind, config, weights, options));
  // Another model made from a faulty one has its fault.
  if (like == nullptr)
    backend = with_fault(std::move(backend), options.planted_fault, config.vocab);

  EngineInfo info;
  info.model_dir = dir.string();
  info.model_type = config.model_type;
  info.fingerprint = summary.fingerprint;
  info.backend = backend->backend();
  info.kernel = backend->kernel();
  info.samples_on_device = backend->samples_on_device() && !options.planted_fault.is_of_draws();
  info.arithmetic = options.kernel.starts_with("bf16") ? "bf16" : "f32";
  info.tensor_parallel = options.tensor_parallel;
  info.vocab = config.vocab;
  info.max_positions = config.max_positions;
  info.n_parameters = summary.n_parameters;
  info.n_active_parameters = summary.n_active_parameters;
  info.active_bytes = summary.n_active_bytes;
  info.routed_bytes = summary.n_routed_bytes;
  info.n_moe_layers = config.n_layers - config.first_dense_layers;
  info.n_experts = config.n_experts;
  info.n_experts_per_token = config.n_experts_per_token;
  // A projection is one multiply-add per weight; the embedding is a look-up. Absorbed attention
  // scores kv_row values and accumulates kv_lora values per head and key.
  info.fma_lm_head = static_cast<std::int64_t>(config.vocab) * config.hidden;
  info.fma_per_token = summary.n_active_parameters - info.fma_lm_head;
  info.fma_per_key = static_cast<std::int64_t>(config.n_layers) * config.n_heads *
                     (config.kv_row() + config.kv_lora);
  info.fma_per_index_key = static_cast<std::int64_t>(config.n_full_indexers()) *
                           config.index_n_heads * (config.index_head_dim + 1);
  info.index_topk = config.index_topk;
  info.stop_ids = generation.eos_ids;
  info.recommended = {.temperature = generation.do_sample ? generation.temperature : 0,
                      .top_p = generation.top_p,
                      .top_k = generation.top_k};
  return std::make_shared<const LoadedModel>(LoadedModel{.config = config,
                                                         .checkpoints = {kept},
                                                         .weights = std::move(weights),
                                                         .backend = std::move(backend),
                                                         .tokenizer = std::move(tokenizer),
                                                         .chat_template = std::move(chat_template),
                                                         .info = std::move(info)});
}

}  // namespace assay::engine
