// config.json of a build: the original's, and how every module is stored. Written last, and made
// again from quantisation.json where it was lost.
#pragma once

#include <filesystem>

#include "base/json.h"
#include "base/result.h"
#include "engine/quantize/recipe.h"

namespace assay::engine {

// `modules`: as quantisation.json has them.
Result<void> write_build_config(const std::filesystem::path& original,
                                const std::filesystem::path& out, const Recipe& recipe,
                                const Json& modules);

// Of a finished build in `out` whose quantisation.json is there and whose tensors are still those
// that it says were written; anything else is an error.
Result<void> restore_build_config(const std::filesystem::path& original,
                                  const std::filesystem::path& out, const Recipe& recipe);

}  // namespace assay::engine
