#include "base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <string>

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class File : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::path(::testing::TempDir()) / (std::string("assay_file_") + test->name());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  int n_entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }

  fs::path dir_;
};

// The disk is full for any file that grows beyond `n_bytes` while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t n_bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{n_bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(File, WhatCannotBeLookedAtIsNotThere) {
  EXPECT_TRUE(is_there(dir_));
  EXPECT_FALSE(is_there(dir_ / "none"));
  EXPECT_FALSE(is_there(dir_ / std::string(5000, 'x'))) << "a name that is too long";
}

TEST_F(File, AnOpenFileIsCurrentUntilAnotherHasItsName) {
  const fs::path path = dir_ / "a";
  ASSERT_TRUE(write_file_atomic(path, "one"));
  const int fd = ::open(path.c_str(), O_RDONLY);
  EXPECT_TRUE(is_current(fd, path));
  ASSERT_TRUE(write_file_atomic(path, "two"));
  EXPECT_FALSE(is_current(fd, path));
  fs::remove(path);
  EXPECT_FALSE(is_current(fd, path));
  ::close(fd);
}

TEST_F(File, ReadsBackWhatWasWritten) {
  std::string bytes(200'000, '\0');  // several reads; NUL and every other byte
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31);
  ASSERT_TRUE(write_file_atomic(dir_ / "f", bytes));
  EXPECT_EQ(read_file(dir_ / "f").value(), bytes);
  EXPECT_EQ(n_entries(), 1) << "no temporary file stays";
}

TEST_F(File, AtomicWriteReplacesTheOldContent) {
  ASSERT_TRUE(write_file_atomic(dir_ / "f", "a long first version"));
  ASSERT_TRUE(write_file_atomic(dir_ / "f", "second"));
  EXPECT_EQ(read_file(dir_ / "f").value(), "second");
}

TEST_F(File, OldContentSurvivesAFullDisk) {
  ASSERT_TRUE(write_file_atomic(dir_ / "f", "old"));
  Result<void> written;
  {
    const FileSizeLimit full(4096);
    written = write_file_atomic(dir_ / "f", std::string(100'000, 'x'));
  }
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message,
              AllOf(HasSubstr("cannot write"), HasSubstr((dir_ / "f").string()),
                    HasSubstr(std::strerror(EFBIG))));
  EXPECT_EQ(read_file(dir_ / "f").value(), "old");
  EXPECT_EQ(n_entries(), 1) << "the half-written temporary file is removed";
}

TEST_F(File, AWriteThatCannotBeRenamedLeavesNothingBehind) {
  fs::create_directories(dir_ / "taken");
  const auto written = write_file_atomic(dir_ / "taken", "x");
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message, HasSubstr("taken"));
  EXPECT_TRUE(fs::is_directory(dir_ / "taken"));
  EXPECT_EQ(n_entries(), 1);
}

TEST_F(File, WritingIntoAMissingFolderNamesPathAndReason) {
  const auto written = write_file_atomic(dir_ / "missing" / "f", "x");
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message, AllOf(HasSubstr((dir_ / "missing" / "f").string()),
                                             HasSubstr(std::strerror(ENOENT))));
}

TEST_F(File, ReadingAFolderOrNothingIsAnErrorThatNamesIt) {
  EXPECT_THAT(read_file(dir_).error().message,
              AllOf(HasSubstr(dir_.string()), HasSubstr("is a folder")));
  EXPECT_THAT(read_file(dir_ / "f").error().message,
              AllOf(HasSubstr((dir_ / "f").string()), HasSubstr(std::strerror(ENOENT))));
}

TEST_F(File, ALinkToNothingIsNotCalledAMissingFile) {
  fs::create_symlink("../model/tokenizer.json", dir_ / "f");
  const std::string says = (dir_ / "f").string() +
                           " is a link to ../model/tokenizer.json, which is not there: if the "
                           "folder was copied, copy it again with cp -rL";
  EXPECT_THAT(check_link(dir_ / "f").error().message, HasSubstr(says));
  EXPECT_THAT(read_file(dir_ / "f").error().message, HasSubstr(says));
  EXPECT_THAT(MappedFile::open(dir_ / "f").error().message, HasSubstr(says));
  EXPECT_TRUE(check_link(dir_ / "nothing"));
  EXPECT_TRUE(check_link(dir_));
}

TEST_F(File, AGzipFileIsReadAsItsText) {
  // printf 'abc\\n' | gzip -9n
  const std::string packed(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\x4c\x4a\xe6\x02\x00\x4e\x81\x88\x47\x04\x00\x00"
      "\x00",
      24);
  ASSERT_TRUE(write_file_atomic(dir_ / "f", packed));
  EXPECT_EQ(read_text_file(dir_ / "f").value(), "abc\n");
  ASSERT_TRUE(write_file_atomic(dir_ / "f", packed + packed));
  EXPECT_EQ(read_text_file(dir_ / "f").value(), "abc\nabc\n") << "members follow each other";
  ASSERT_TRUE(write_file_atomic(dir_ / "f", "plain"));
  EXPECT_EQ(read_text_file(dir_ / "f").value(), "plain");
  ASSERT_TRUE(write_file_atomic(dir_ / "f", packed.substr(0, 20)));
  EXPECT_THAT(read_text_file(dir_ / "f").error().message,
              AllOf(HasSubstr((dir_ / "f").string()), HasSubstr("cut off at byte 20 of 20")));
  std::string broken = packed;
  broken[12] = '\0';
  ASSERT_TRUE(write_file_atomic(dir_ / "f", broken));
  EXPECT_THAT(read_text_file(dir_ / "f").error().message, HasSubstr("broken"));
}

TEST_F(File, WhatCannotBeWrittenIsSaidBeforeTheWork) {
  EXPECT_TRUE(check_writable(dir_ / "f"));
  EXPECT_EQ(n_entries(), 0) << "nothing is written";
  EXPECT_THAT(check_writable(dir_).error().message, HasSubstr("is a folder"));
  EXPECT_THAT(check_writable(dir_ / "none" / "f").error().message,
              HasSubstr("there is no folder " + (dir_ / "none").string()));
}

TEST_F(File, MappedBytesAreTheFiles) {
  ASSERT_TRUE(write_file_atomic(dir_ / "f", "mapped bytes"));
  auto mapped = MappedFile::open(dir_ / "f");
  ASSERT_TRUE(mapped) << mapped.error().message;
  const MappedFile moved = *std::move(mapped);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(moved.bytes().data()), moved.bytes().size()),
            "mapped bytes");
}

TEST_F(File, AnEmptyFileMapsToNoBytes) {
  ASSERT_TRUE(write_file_atomic(dir_ / "f", ""));
  const auto mapped = MappedFile::open(dir_ / "f");
  ASSERT_TRUE(mapped) << mapped.error().message;
  EXPECT_TRUE(mapped->bytes().empty());
}

TEST_F(File, MappingAFolderOrNothingIsAnErrorThatNamesIt) {
  EXPECT_THAT(MappedFile::open(dir_).error().message,
              AllOf(HasSubstr(dir_.string()), HasSubstr("not a regular file")));
  EXPECT_THAT(MappedFile::open(dir_ / "f").error().message,
              AllOf(HasSubstr((dir_ / "f").string()), HasSubstr(std::strerror(ENOENT))));
}

}  // namespace
}  // namespace assay
