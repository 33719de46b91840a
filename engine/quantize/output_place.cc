#include "engine/quantize/output_place.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/unfinished.h"

namespace assay::engine {
namespace {

// A config.json alone may be any program's.
bool is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(quantise_state(folder), ignored)) return true;
  if (!fs::exists(folder / "config.json", ignored)) return false;
  const auto config = read_json(folder / "config.json");
  return config && config->is_object() &&
         (config->contains("model_type") || config->contains("architectures"));
}

}  // namespace

Result<void> check_place(const fs::path& out) {
  std::error_code error;
  if (fs::exists(out, error)) return {};
  fs::path place = fs::weakly_canonical(fs::absolute(out), error);
  if (error) return {};  // making it says what is wrong
  while (place.has_relative_path()) {
    place = place.parent_path();
    if (is_checkpoint(place))
      return fail(
          "{} lies inside {}, which is a checkpoint itself: a build is not made inside another "
          "model's folder. Choose one beside it",
          out.string(), place.string());
  }
  return {};
}

}  // namespace assay::engine
