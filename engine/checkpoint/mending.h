// What mends a checkpoint folder in which a file is damaged or missing: that depends on who made
// it.
#pragma once

#include <filesystem>
#include <string>

namespace assay::engine {

// Whether assay quantize has finished it: its report is there.
bool is_own_build(const std::filesystem::path& model_dir);

// A sentence: to download it again, or to make it again where assay quantize has made it.
std::string how_to_mend(const std::filesystem::path& model_dir);

}  // namespace assay::engine
