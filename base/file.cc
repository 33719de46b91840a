#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace assay {
namespace {

constexpr int kGzip = 16;  // added to the window bits: with a gzip header

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

bool is_there(const fs::path& path) {
  std::error_code ignored;  // else it throws, for example of a name that is too long
  return fs::exists(path, ignored);
}

Result<void> check_link(const fs::path& path) {
  std::error_code ignored, why;
  if (!fs::is_symlink(fs::symlink_status(path, ignored)) || fs::exists(path, why)) return {};
  if (why) return fail("{} is a link that leads nowhere: {}", path.string(), why.message());
  return fail(
      "{} is a link to {}, which is not there: if the folder was copied, copy it again with cp "
      "-rL, which copies files instead of links",
      path.string(), fs::read_symlink(path, ignored).string());
}

bool is_current(int fd, const fs::path& path) {
  struct stat own {
  }, named{};
  return fstat(fd, &own) == 0 && stat(path.c_str(), &named) == 0 && own.st_ino == named.st_ino &&
         own.st_dev == named.st_dev;
}

namespace {

tl::unexpected<Error> cannot_open(const fs::path& path) {
  const std::string why = reason();
  if (Result<void> link = check_link(path); !link) return tl::unexpected(std::move(link).error());
  return fail("cannot open {}: {}", path.string(), why);
}

}  // namespace

Result<std::string> read_file(const fs::path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return cannot_open(path);
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

Result<std::string> read_text_file(const fs::path& path) {
  Result<std::string> file = read_file(path);
  if (!file || !file->starts_with("\x1f\x8b")) return file;
  std::string& packed = *file;
  if (packed.size() > std::numeric_limits<uInt>::max())
    return fail("{}: a gzip file of {} bytes, expected less than 4 GiB. Unpack it first.",
                path.string(), packed.size());
  z_stream z = {};
  CHECK(inflateInit2(&z, MAX_WBITS + kGzip) == Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(packed.data());
  z.avail_in = static_cast<uInt>(packed.size());
  std::string out, piece(std::size_t{1} << 18, '\0');
  int code = Z_OK;
  while (code == Z_OK) {
    z.next_out = reinterpret_cast<Bytef*>(piece.data());
    z.avail_out = static_cast<uInt>(piece.size());
    code = inflate(&z, Z_NO_FLUSH);
    out.append(piece, 0, piece.size() - z.avail_out);
    // A file may be several that were put together.
    if (code == Z_STREAM_END && z.avail_in != 0) code = inflateReset(&z);
  }
  const std::size_t at = packed.size() - z.avail_in;
  inflateEnd(&z);
  if (code == Z_STREAM_END) return out;
  return fail("{}: the gzip data is {} at byte {} of {}. Copy the file again.", path.string(),
              z.avail_in == 0 ? "cut off" : "broken", at, packed.size());
}

std::string gzip(std::string_view bytes) {
  z_stream z = {};
  CHECK(deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, MAX_WBITS + kGzip, 9,
                     Z_DEFAULT_STRATEGY) == Z_OK);
  CHECK(bytes.size() <= std::numeric_limits<uInt>::max()) << bytes.size();
  std::string out(deflateBound(&z, bytes.size()), '\0');
  z.next_in =
      reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));  // zlib does not write to it
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

fs::path temporary_of(const fs::path& path) { return path.string() + ".tmp"; }

Result<void> write_file_atomic(const fs::path& path, std::string_view bytes) {
  return write_file_atomic(path, std::span(&bytes, 1));
}

Result<void> write_file_atomic(const fs::path& path, std::span<const std::string_view> pieces) {
  const fs::path temporary = temporary_of(path);
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return fail("cannot create {}: {}", temporary.string(), reason());
  Result<void> written;
  for (const std::string_view piece : pieces)
    if (written) written = write_all(fd.get(), path, piece);
  if (written && ::fsync(fd.get()) != 0)
    written = fail("cannot write {}: {}", path.string(), reason());
  if (written && ::close(fd.release()) != 0)
    written = fail("cannot write {}: {}", path.string(), reason());
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0)
    written = fail("cannot rename {} to {}: {}", temporary.string(), path.string(), reason());
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<void> check_writable(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    return fail("{} is a folder, expected the name of a file", path.string());
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, ignored))
    return fail("cannot write {}: there is no folder {}", path.string(), folder.string());
  if (::access(folder.c_str(), W_OK) != 0)
    return fail("cannot write {}: {}", path.string(), reason());
  return {};
}

Result<MappedFile> MappedFile::open(const fs::path& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return cannot_open(path);
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
