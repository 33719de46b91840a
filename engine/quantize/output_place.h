// Whether a build can be made in a folder: asked before a model is read, which may take hours.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/quantize/recipe.h"

namespace assay::engine {

// A folder that is there holds nothing, unfinished work, or a finished build whose parts tell what
// it is. One that is not there yet can be made, and lies in no checkpoint.
Result<void> check_place(const std::filesystem::path& out);

// That a build of `original` has room beside what an earlier run has left in `out`. By the least
// that it can need, so that what passes may still be too much.
Result<void> check_space(const std::filesystem::path& out, const Checkpoint& original,
                         const Recipe& recipe);

}  // namespace assay::engine
