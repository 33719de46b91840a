// Files: read whole, map read-only, write atomically. Messages name the path and the system's
// reason.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace assay {

namespace fs = std::filesystem;

// What cannot be looked at is not there.
bool is_there(const fs::path& path);
// A link to what is not there is an error that names both; all else is fine.
Result<void> check_link(const fs::path& path);
// Whether an open file or folder is still what `path` names: another process may have deleted or
// replaced it.
bool is_current(int fd, const fs::path& path);

Result<std::string> read_file(const fs::path& path);

// The same, unpacked if it is a gzip file.
Result<std::string> read_text_file(const fs::path& path);
// A gzip file of these bytes, always the same for the same bytes: no name and no time in it.
std::string gzip(std::string_view bytes);

// Writes beside the target, fsyncs, renames over it: a reader sees the old file or the new one,
// never half.
Result<void> write_file_atomic(const fs::path& path, std::string_view bytes);
// Where that writes first. A process that was killed may leave it behind.
fs::path temporary_of(const fs::path& path);
// The pieces one after the other, without a copy of the whole.
Result<void> write_file_atomic(const fs::path& path, std::span<const std::string_view> pieces);

// For a file that is written after long work: fails at once if its folder is missing or not
// writable, or if the path is a folder. Writes nothing.
Result<void> check_writable(const fs::path& path);

// A read-only mapping of a whole file.
class MappedFile {
 public:
  static Result<MappedFile> open(const fs::path& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace assay
