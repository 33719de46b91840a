#include "engine/checkpoint/enclosing.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/unfinished.h"

namespace assay::engine {
namespace {

bool has_weights(const fs::path& folder) {
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored))
    if (it->path().extension() == ".safetensors") return true;
  return false;
}

// A config.json alone may be any program's, or that of a shape.
bool is_checkpoint(const fs::path& folder) {
  if (is_there(quantise_state(folder))) return true;
  if (!is_there(folder / "config.json") || !has_weights(folder)) return false;
  const auto config = read_json(folder / "config.json");
  return config && config->is_object() &&
         (config->contains("model_type") || config->contains("architectures"));
}

}  // namespace

Result<void> check_is_in_no_checkpoint(const fs::path& out) {
  std::error_code error;
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
