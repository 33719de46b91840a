// Everything that is read from a model folder, once, and shared by all engines on it.
#pragma once

#include <filesystem>
#include <memory>

#include "engine/backend/backend.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"

namespace assay::engine {

struct LoadedModel {
  Checkpoint checkpoint;
  std::shared_ptr<const BackendModel> backend;  // may point into checkpoint's mapped files
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
  EngineInfo info;  // all but what an engine chooses: attention, threads, chunk
};

Result<std::shared_ptr<const LoadedModel>> load_model(const std::filesystem::path& model_dir,
                                                      const EngineOptions& options);

}  // namespace assay::engine
