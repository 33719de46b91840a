#include "engine/checkpoint/mending.h"

#include <fmt/format.h>

#include "base/file.h"

namespace assay::engine {

bool is_own_build(const fs::path& model_dir) {
  std::error_code ignored;
  return fs::exists(model_dir / "quantisation.json", ignored) ||
         fs::exists(model_dir / "quantisation-identity.json", ignored);
}

std::string how_to_mend(const fs::path& model_dir) {
  if (!is_own_build(model_dir)) return "Download it again.";
  return fmt::format(
      "assay quantize made this build: copy the file from where the build is whole, or delete {} "
      "and run the same assay quantize again.",
      model_dir.string());
}

}  // namespace assay::engine
