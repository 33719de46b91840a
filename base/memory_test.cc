#include "base/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <vector>

#include "base/file.h"

namespace assay {
namespace {

constexpr std::int64_t kBytes = 64 << 20, kSlack = 8 << 20;

MemoryUse now() {
  const auto use = memory_use();
  EXPECT_TRUE(use) << use.error().message;
  return use ? *use : MemoryUse{};
}

TEST(MemoryUse, WhatIsFreedIsNoLongerResidentButStaysInThePeakUntilItIsReset) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer keeps what was freed, and shadows of it";
#endif
  const MemoryUse before = now();
  auto held = std::make_unique<std::vector<char>>(kBytes, 'x');
  const MemoryUse during = now();
  EXPECT_GT(during.resident_bytes, before.resident_bytes + kBytes - kSlack);
  EXPECT_LT(during.mapped_bytes, before.mapped_bytes + kSlack) << "of no file";
  held.reset();
  const MemoryUse after = now();
  EXPECT_LT(after.resident_bytes, during.resident_bytes - kBytes + kSlack);
  EXPECT_GE(after.peak_bytes, during.resident_bytes - kSlack);
  if (!reset_peak_memory()) GTEST_SKIP() << "this system does not let a process reset its peak";
  EXPECT_LT(now().peak_bytes, during.resident_bytes - kBytes + kSlack);
}

TEST(MemoryUse, PagesOfAMappedFileCountAsSuch) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow is mapped too";
#endif
  std::string path = (fs::temp_directory_path() / "assay-memory-XXXXXX").string();
  const int fd = mkstemp(path.data());
  ASSERT_GE(fd, 0);
  close(fd);
  std::ofstream(path, std::ios::binary) << std::string(kBytes, 'x');
  const MemoryUse before = now();
  {
    const auto file = MappedFile::open(path);
    ASSERT_TRUE(file) << file.error().message;
    long sum = 0;
    for (const std::byte b : file->bytes()) sum += static_cast<long>(b);
    EXPECT_EQ(sum, kBytes * 'x');
    EXPECT_GT(now().mapped_bytes, before.mapped_bytes + kBytes - kSlack);
  }
  fs::remove(path);
}

}  // namespace
}  // namespace assay
