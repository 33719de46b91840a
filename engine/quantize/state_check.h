// What an earlier run has left in OUT/quantize-state, looked at before anything is made of it.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace assay::engine {

// A state in which nothing is finished yet: at most its lock, and what was half written.
bool is_state_without_pieces(const std::filesystem::path& folder);

// That every finished piece is what its checksum says, and that there is an identity to them. One
// error names all that are not.
Result<void> check_state(const std::filesystem::path& folder);

}  // namespace assay::engine
