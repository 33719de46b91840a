// Whether a folder lies in a checkpoint's.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace assay::engine {

// That `out`, which is to be made, lies in no checkpoint, finished or not: who copies, deletes or
// fingerprints that one would take the new model for a part of it.
Result<void> check_is_in_no_checkpoint(const std::filesystem::path& out);

}  // namespace assay::engine
