// Everything that is read from a model folder, once, and shared by all engines on it.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/ranks.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"

namespace assay::engine {

struct LoadedModel {
  ModelConfig config;
  std::vector<std::shared_ptr<const Checkpoint>> checkpoints;  // one; of a mixture two
  ModelWeights weights;                                        // views into their mapped files …
  std::shared_ptr<const BackendModel> backend;                 // … as this may be
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
  EngineInfo info;  // all but what an engine chooses: attention, threads, chunk
};

// `like`: a loaded model whose backend, and packed weights, this one shares (BackendModel::with).
Result<std::shared_ptr<const LoadedModel>> load_model(const std::filesystem::path& model_dir,
                                                      const EngineOptions& options,
                                                      const LoadedModel* like = nullptr);

Result<RankKind> find_backend(std::string_view name);

// In a process that is a rank: its part of what Command::source says.
Result<RankModel> load_rank_model(const RankKind& kind, const Command& command, const Comm& comm);

}  // namespace assay::engine
