// The options of every verb that loads a model into the embedded engine.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <span>
#include <string>

#include "engine/engine.h"

namespace assay::cli {

struct EngineFlags {
  std::string model, backend = "cpu", kernel, attention = "auto";
  int n_threads = 0, tensor_parallel = 1, prefill_chunk = 512, context = 0;
  int n_engines = 1;  // no flag: what the verb will share at a time
};

inline constexpr const char* kTensorParallelHelp =
    "Ranks that share the model: so many GPUs of cuda (over NCCL), or parts of cpu's threads; "
    "under mpirun -np N its processes";

inline constexpr const char* kContextHelp =
    "Most tokens of a conversation, up to the model's positions, so that a GPU plans less memory "
    "(0: all of them)";

// Where fingerprints are kept between runs: $XDG_CACHE_HOME/assay, else ~/.cache/assay, else
// nowhere.
std::filesystem::path cache_dir();

void add_engine_flags(CLI::App& app, EngineFlags& flags);   // --model and the rest
void add_compute_flags(CLI::App& app, EngineFlags& flags);  // all but --model
Result<engine::EngineOptions> engine_options(const EngineFlags& flags);
Result<engine::Engine> load_engine(const EngineFlags& flags);
// A warning for each of a model's folder (engine::EngineInfo::misspelt).
void warn_of_misspelt_keys(const std::filesystem::path& model,
                           std::span<const std::string> misspelt);

}  // namespace assay::cli
