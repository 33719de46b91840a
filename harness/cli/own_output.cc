#include "harness/cli/own_output.h"

namespace assay::cli {

Result<void> check_own_or_new(const fs::path& path, std::string_view what,
                              const std::function<bool(const fs::path&)>& is_own) {
  ASSAY_TRY_VOID(check_writable(path));
  std::error_code none;
  if (!fs::exists(path, none) ||
      (fs::is_regular_file(path, none) && fs::file_size(path, none) == 0))
    return {};
  if (fs::is_regular_file(path, none) && is_own(path)) return {};
  return fail("{}: is there already and is no {}: nothing is overwritten. Choose another file",
              path.string(), what);
}

Result<void> check_own_json(const fs::path& path, std::string_view what,
                            const std::function<bool(const Json&)>& is_own) {
  return check_own_or_new(path, what, [&](const fs::path& file) {
    const auto json = read_json(file);
    return json && json->is_object() && is_own(*json);
  });
}

}  // namespace assay::cli
