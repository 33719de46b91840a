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

Result<fs::path> make_own_folder(const fs::path& wanted) {
  std::error_code error;
  if (wanted.has_parent_path()) fs::create_directories(wanted.parent_path(), error);
  constexpr int kMost = 1000;
  for (int n = 1; !error && n <= kMost; ++n) {
    const fs::path folder = n == 1 ? wanted : fs::path(fmt::format("{}-{}", wanted.string(), n));
    // Of all processes that try, the file system lets one make it.
    if (fs::create_directory(folder, error)) return folder;
  }
  return fail("cannot create the output folder {}: {}. Choose another with --out.", wanted.string(),
              error ? error.message() : "it and its like are all taken");
}

}  // namespace assay::cli
