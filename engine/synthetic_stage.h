// Where a synthetic checkpoint is made: a folder beside the one that it is to be, which nobody sees
// under its name before it is whole.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace assay::engine {

// Deleted with all that it holds unless it becomes the folder that is to be made. So no other's
// file is ever deleted. Locked while its process lives (the lock is the kernel's, and goes with the
// process however that ends).
class Stage {
 public:
  // ".NAME.unfinished-PID-I" beside `out`.
  static Result<std::unique_ptr<Stage>> beside(const std::filesystem::path& out);
  // Deletes those beside `out`, of the same name, that processes left that were killed: that nobody
  // holds. Answers what they were.
  static std::vector<std::filesystem::path> clear_left_beside(const std::filesystem::path& out);

  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  // An empty folder gives way to it, and nothing else does.
  Result<void> finish();

 private:
  Stage(std::filesystem::path folder, std::filesystem::path target, int lock);

  std::filesystem::path folder_, target_;
  int lock_;  // -1: of a file system that has no locks of folders
};

}  // namespace assay::engine
