#include "engine/model.h"

#include <array>
#include <chrono>

#include "base/plural.h"
#include "engine/backend/tensor_parallel.h"
#include "engine/checkpoint/inspect.h"
#include "engine/processes.h"

namespace assay::engine {
namespace {

constexpr std::array<RankKind, 3> kBackends = {
    {{"cpu", load_cpu_model, new_thread_comms, new_process_comm},
     {"cuda", load_cuda_model, new_nccl_comms, new_nccl_process_comm},
     {"reference", load_reference_model, new_thread_comms, new_process_comm}}};

// A job's processes are the ranks, all of them.
Result<void> check_processes(const Processes& processes, int n_ranks) {
  if (processes.size() == n_ranks) return {};
  return fail(
      "mpirun started {} processes, but this model is for {} (--tp {}): start as many processes as "
      "--tp says (mpirun -np N, --tp N), or run it without mpirun",
      processes.size(), n_ranks, n_ranks);
}

Result<std::shared_ptr<const BackendModel>> load_backend(const RankKind& kind,
                                                         const ModelConfig& config,
                                                         const ModelWeights& weights,
                                                         const EngineOptions& options,
                                                         const ShardSource& source) {
  Processes* const processes = joined_processes();
  if (processes != nullptr) ASSAY_TRY_VOID(check_processes(*processes, options.tensor_parallel));
  if (options.tensor_parallel == 1) return kind.load(config, weights, options.kernel);
  return load_tensor_parallel_model(kind, config, weights, options.tensor_parallel, source,
                                    processes);
}

// What a rank's backend may compute from.
struct MappedModel {
  Checkpoint checkpoint;
  ModelWeights weights;
};

}  // namespace

Result<RankKind> find_backend(std::string_view name) {
  for (const RankKind& kind : kBackends)
    if (kind.name == name) return kind;
  return fail("unknown backend '{}', expected one of: cpu, cuda, reference", name);
}

Result<RankModel> load_rank_model(const RankKind& kind, const Command& command, const Comm& comm) {
  const ShardSource& source = command.source;
  ASSAY_TRY(Checkpoint checkpoint, Checkpoint::open(source.dir));
  ASSAY_TRY(const std::string fingerprint, checkpoint.fingerprint(source.cache_dir));
  if (fingerprint != source.fingerprint)
    return fail("{} has the fingerprint {} there, and {} on rank 0's machine: copy the same model",
                source.dir, fingerprint, source.fingerprint);
  const auto mapped =
      std::make_shared<MappedModel>(MappedModel{std::move(checkpoint), ModelWeights{}});
  // Rank 0's bytes, all of which it has checked.
  ASSAY_TRY(mapped->weights, bind_weights(mapped->checkpoint, false));
  ASSAY_TRY(const Sharding sharding,
            Sharding::plan(mapped->checkpoint.config(), mapped->weights, comm.size()));
  ASSAY_TRY(RankModel model, load_shard(sharding, comm.rank(), kind.load, source.kernel));
  model.weights = mapped;
  return model;
}

Result<std::shared_ptr<const LoadedModel>> load_model(const std::filesystem::path& dir,
                                                      const EngineOptions& options,
                                                      const LoadedModel* like) {
  ASSAY_TRY(const RankKind kind, find_backend(options.backend));
  ASSAY_TRY(Checkpoint opened, Checkpoint::open(dir));
  const auto kept = std::make_shared<const Checkpoint>(std::move(opened));
  const Checkpoint& checkpoint = *kept;
  const ModelConfig& config = checkpoint.config();
  if (options.context > config.max_positions)  // before hours of reading
    return fail(
        "{}: a context of {} was asked for (--context), and the model has {}: ask for at most "
        "that, or leave it out",
        dir.string(), counted(options.context, "token"), counted(config.max_positions, "position"));
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
  const ShardSource source = {.kernel = options.kernel,
                              .dir = std::filesystem::absolute(dir).string(),
                              .fingerprint = summary.fingerprint,
                              .cache_dir = options.cache_dir.string()};
  const auto start = std::chrono::steady_clock::now();
  ASSAY_TRY(auto backend, like != nullptr ? like->backend->with(config, weights)
                                          : load_backend(kind, config, weights, options, source));
  const std::chrono::duration<double> layout = std::chrono::steady_clock::now() - start;
  // Another model made from a faulty one has its fault.
  if (like == nullptr)
    backend = with_fault(std::move(backend), options.planted_fault, config.vocab);

  EngineInfo info;
  info.model_dir = dir.string();
  info.model_type = config.model_type;
  info.synthetic = config.synthetic;
  info.misspelt = misspelt_in_files(dir, config);
  info.fingerprint = summary.fingerprint;
  info.backend = backend->backend();
  info.kernel = backend->kernel();
  info.samples_on_device = backend->samples_on_device() && !options.planted_fault.is_of_draws();
  info.arithmetic = options.kernel.starts_with("bf16") ? "bf16" : "f32";
  info.prefill_equals_decode = info.arithmetic == "f32" && !options.planted_fault.is_of_rows();
  info.tensor_parallel = options.tensor_parallel;
  info.layout_s = layout.count();
  info.weight_bytes = static_cast<std::int64_t>(backend->weight_bytes());
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
