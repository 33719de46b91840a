#include "harness/cli/engine_flags.h"

#include <cstdlib>

#include "harness/cli/at_least.h"
#include "harness/cli/say.h"

namespace assay::cli {

std::filesystem::path cache_dir() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) return xdg / "assay";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "assay";
  return {};
}

void add_engine_flags(CLI::App& app, EngineFlags& flags) {
  app.add_option("-m,--model", flags.model,
                 "Checkpoint folder (config.json, safetensors, tokenizer.json, chat template)")
      ->required();
  add_compute_flags(app, flags);
}

void add_compute_flags(CLI::App& app, EngineFlags& flags) {
  app.add_option("--backend,--device", flags.backend,
                 "cpu, cuda (a GPU, or with --tp several), or reference (scalar, the definition of "
                 "correct, slow)")
      ->capture_default_str();
  app.add_option(
      "--kernel", flags.kernel,
      "Force a kernel instead of the best: avx2 or avx512 of cpu, graph or stream of cuda "
      "(decode steps recorded, or launch by launch), bf16 or bf16-stream (the same, with prompt "
      "chunks in bfloat16 on tensor cores); fails where it cannot run");
  app.add_option("--attention", flags.attention,
                 "dense, sparse, or auto: what the checkpoint was made for")
      ->capture_default_str();
  app.add_option("-t,--threads", flags.n_threads, "Threads (0: every usable core)")
      ->check(thread_count())
      ->capture_default_str();
  app.add_option("--tp", flags.tensor_parallel, kTensorParallelHelp)->capture_default_str();
  app.add_option("--context", flags.context, kContextHelp)->capture_default_str();
  app.add_option("--prefill-chunk", flags.prefill_chunk, "Prompt tokens per step")
      ->capture_default_str();
}

Result<engine::EngineOptions> engine_options(const EngineFlags& flags) {
  engine::EngineOptions options{.backend = flags.backend,
                                .kernel = flags.kernel,
                                .n_threads = flags.n_threads,
                                .tensor_parallel = flags.tensor_parallel,
                                .attention = engine::Attention::kAuto,
                                .check_finite = true,
                                .cache_dir = cache_dir(),
                                .prefill_chunk = flags.prefill_chunk,
                                .context = flags.context,
                                .n_engines = flags.n_engines};
  if (flags.attention == "dense")
    options.attention = engine::Attention::kDense;
  else if (flags.attention == "sparse")
    options.attention = engine::Attention::kSparse;
  else if (flags.attention != "auto")
    return fail("--attention is '{}', expected dense, sparse or auto", flags.attention);
  return options;
}

Result<engine::Engine> load_engine(const EngineFlags& flags) {
  ASSAY_TRY(const engine::EngineOptions options, engine_options(flags));
  auto engine = engine::Engine::load(flags.model, options);
  if (engine && !engine->info().synthetic.empty())
    say("assay: {} is not a model: {}. How fast it is means something, what it says does not\n",
        flags.model, engine->info().synthetic);
  if (engine) warn_of_misspelt_keys(flags.model, engine->info().misspelt);
  return engine;
}

void warn_of_misspelt_keys(const std::filesystem::path& model,
                           std::span<const std::string> misspelt) {
  for (const std::string& key : misspelt) say("warning: {}\n", (model / key).string());
}

}  // namespace assay::cli
