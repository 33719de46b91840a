#include "engine/synthetic_stage.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/file.h"

namespace assay::engine {
namespace {

Result<fs::path> target_of(const fs::path& out) {
  std::error_code error;
  fs::path target = fs::weakly_canonical(fs::absolute(out), error);
  if (error) return fail("cannot make {}: {}", out.string(), error.message());
  return target.has_filename() ? target : target.parent_path();  // "out/"
}

std::string prefix_of(const fs::path& target) {
  return fmt::format(".{}.unfinished-", target.filename().string());
}

// The rest of a name: "1234-0", a process and a count.
bool is_process_and_count(std::string_view rest) {
  const auto is_number = [](std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const std::size_t dash = rest.find('-');
  return dash != std::string_view::npos && is_number(rest.substr(0, dash)) &&
         is_number(rest.substr(dash + 1));
}

// -1: it is no folder, somebody has it, or the file system has no locks of folders.
int locked(const fs::path& folder, int how) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  int failed = 0;
  while ((failed = flock(fd, how)) != 0 && errno == EINTR) {
  }
  if (failed == 0 && is_current(fd, folder)) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

Result<std::unique_ptr<Stage>> Stage::beside(const fs::path& out) {
  ASSAY_TRY(const fs::path target, target_of(out));
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  fs::path folder;
  for (int i = 0; !error && i < 100; ++i) {
    folder = target.parent_path() / fmt::format("{}{}-{}", prefix_of(target), ::getpid(), i);
    if (!fs::create_directory(folder, error)) continue;
    const int lock = locked(folder, LOCK_EX);
    // Between the two who clears what was left may have come.
    if (lock >= 0 || is_there(folder))
      return std::unique_ptr<Stage>(new Stage(std::move(folder), target, lock));
  }
  return fail("cannot create folder {}: {}. Choose another place",
              (folder.empty() ? target.parent_path() : folder).string(),
              error ? error.message() : "it is there already");
}

std::vector<fs::path> Stage::clear_left_beside(const fs::path& out) {
  std::vector<fs::path> left, cleared;
  const auto target = target_of(out);
  if (!target) return {};
  const std::string prefix = prefix_of(*target);
  std::error_code ignored;
  for (fs::directory_iterator it(target->parent_path(), ignored), end; it != end;
       it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) &&
        is_process_and_count(std::string_view(name).substr(prefix.size())))
      left.push_back(it->path());
  }
  for (fs::path& folder : left) {
    const int lock = locked(folder, LOCK_EX | LOCK_NB);
    if (lock < 0) continue;
    std::error_code error;
    fs::remove_all(folder, error);
    ::close(lock);
    if (!error) cleared.push_back(std::move(folder));
  }
  return cleared;
}

Stage::Stage(fs::path folder, fs::path target, int lock)
    : folder_(std::move(folder)), target_(std::move(target)), lock_(lock) {}

Stage::~Stage() {
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

Result<void> Stage::finish() {
  if (std::rename(folder_.c_str(), target_.c_str()) != 0)
    return fail("cannot name what was made {}: {}. Choose another folder", target_.string(),
                errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR
                    ? "it came to be there meanwhile"
                    : std::strerror(errno));
  folder_.clear();
  return {};
}

}  // namespace assay::engine
