// Whether a new build may be made in a folder.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace assay::engine {

// A folder that is not there yet must not lie inside a checkpoint, finished or not: who copies,
// deletes or fingerprints that one would take the new build for a part of it.
Result<void> check_place(const std::filesystem::path& out);

}  // namespace assay::engine
