#include "engine/quantize/state_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/file.h"
#include "engine/checkpoint/unfinished.h"

namespace assay::engine {
namespace {

// Who only asks whether someone works here holds the lock too, for an instant (unfinished.h).
constexpr int kTries = 5;
constexpr std::chrono::milliseconds kPause{20};

// "process 1234 on workstation", for who is kept out.
std::string own_name() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return fmt::format("process {} on {}", getpid(), host.data());
}

}  // namespace

fs::path StateLock::file_of(const fs::path& folder) { return quantise_lock(folder); }

Result<StateLock> StateLock::take(const fs::path& folder) {
  const fs::path file = file_of(folder);
  for (int n_tries_left = kTries;;) {
    StateLock lock;
    lock.fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock.fd_ < 0) return fail("cannot write {}: {}", file.string(), std::strerror(errno));
    if (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK)
        return fail("cannot lock {}: {}. Choose a folder on a file system that has locks",
                    file.string(), std::strerror(errno));
      if (--n_tries_left > 0) {
        std::this_thread::sleep_for(kPause);
        continue;
      }
      const std::string holder = read_file(file).value_or("");
      return fail("{} is being worked on by {}: wait for it or end it, or choose another folder",
                  folder.parent_path().string(), holder.empty() ? "another process" : holder);
    }
    if (!is_current(lock.fd_, file)) continue;  // its last holder deleted it
    const std::string name = own_name();
    // Only for who is kept out: a full disk takes nothing from the lock itself.
    if (ftruncate(lock.fd_, 0) == 0 && pwrite(lock.fd_, name.data(), name.size(), 0) < 0) errno = 0;
    return lock;
  }
}

StateLock::StateLock(StateLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
StateLock& StateLock::operator=(StateLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
StateLock::~StateLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace assay::engine
