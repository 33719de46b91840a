// A verb's --out: replaces what the verb wrote there itself, and nothing else.
#pragma once

#include <functional>
#include <string_view>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"

namespace assay::cli {

// As check_writable; and an error where a file is there, not empty, that `is_own` does not know as
// `what` ("JSON of assay diverge"). Asked for before the verb's work, so that no work is lost.
Result<void> check_own_or_new(const fs::path& path, std::string_view what,
                              const std::function<bool(const fs::path&)>& is_own);
// Of files that are one JSON object.
Result<void> check_own_json(const fs::path& path, std::string_view what,
                            const std::function<bool(const Json&)>& is_own);

// Makes a folder that nobody else has: `wanted`, or where that is taken `wanted`-2, -3 … Two runs
// of the same second have the same default.
Result<fs::path> make_own_folder(const fs::path& wanted);

}  // namespace assay::cli
