// The fingerprint of files that may take minutes to read.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "engine/checkpoint/safetensors.h"

namespace assay::engine {

// As in checkpoint.h. `go_on` is asked before every tensor that is read; its error ends the work.
Result<std::string> fingerprint_of(std::span<const SafetensorsFile> shards,
                                   const std::filesystem::path& cache_dir,
                                   const std::function<Result<void>()>& go_on);

}  // namespace assay::engine
