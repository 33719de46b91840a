// What a quantisation is made of and how: what must be the same where one goes on with another's
// work.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "engine/quantize/quantize.h"

namespace assay::engine {

// In the state of an unfinished build.
inline constexpr std::string_view kIdentityFile = "identity.json";

Json identity_of(const QuantizeInput& in, const std::string& model_fingerprint);

// Of either kind of build. A file that is none is an error.
Result<Json> read_identity(const std::filesystem::path& file);

// "bits 1.71 there, 1.6 asked for; …"; empty if they are the same.
std::string differences(const Json& there, const Json& asked);

// Whether `out` is finished and of this identity. An error if it is finished and of another.
Result<bool> is_finished(const std::filesystem::path& out, const Json& identity);
Result<void> save_finished_identity(const std::filesystem::path& out, const Json& identity);

}  // namespace assay::engine
