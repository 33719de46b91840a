// One process at a time works in a quantisation's state. The lock is the kernel's and goes with the
// process that holds it, however that ends: none is ever left behind.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace assay::engine {

class StateLock {
 public:
  // Of the state in `folder`, which is there. Held by another process: an error that names it.
  static Result<StateLock> take(const std::filesystem::path& folder);
  static std::filesystem::path file_of(const std::filesystem::path& folder);

  StateLock() = default;  // holds nothing
  StateLock(StateLock&& other) noexcept;
  StateLock& operator=(StateLock&& other) noexcept;
  ~StateLock();

  bool is_held() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace assay::engine
