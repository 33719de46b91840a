#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace assay {
namespace {

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string reason() { return std::strerror(errno); }

Result<void> write_all(int fd, const fs::path& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return fail("cannot write {}: {}. Free some space or choose another folder.", path.string(),
                  reason());
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const fs::path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return fail("cannot open {}: {}", path.string(), reason());
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return fail("cannot stat {}: {}", path.string(), reason());
  if (S_ISDIR(info.st_mode)) return fail("{} is a folder, expected a file", path.string());
  std::string text;
  text.reserve(static_cast<std::size_t>(info.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("cannot read {}: {}", path.string(), reason());
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

Result<void> write_file_atomic(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.string() + ".tmp";
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return fail("cannot create {}: {}", temporary.string(), reason());
  auto written = write_all(fd.get(), path, bytes);
  if (written && ::fsync(fd.get()) != 0)
    written = fail("cannot write {}: {}", path.string(), reason());
  if (written && ::close(fd.release()) != 0)
    written = fail("cannot write {}: {}", path.string(), reason());
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0)
    written = fail("cannot rename {} to {}: {}", temporary.string(), path.string(), reason());
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<MappedFile> MappedFile::open(const fs::path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return fail("cannot open {}: {}", path.string(), reason());
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return fail("cannot stat {}: {}", path.string(), reason());
  if (!S_ISREG(info.st_mode)) return fail("{} is not a regular file", path.string());
  MappedFile file;
  file.size_ = static_cast<std::size_t>(info.st_size);
  if (file.size_ == 0) return file;
  void* data = ::mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) return fail("cannot map {}: {}", path.string(), reason());
  file.data_ = static_cast<const std::byte*>(data);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace assay
