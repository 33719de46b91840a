// For tests of the built program: runs it, and gives each test a folder.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

namespace assay {

inline const std::string kModel = std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/model";

struct Outcome {
  int code;
  std::string out, err;
  double peak_bytes;  // resident memory
};

// Runs the built program; a negative code is the signal that ended it.
class Program {
 public:
  // max_file_bytes: no file may grow beyond it, as on a full disk; 0: no limit. input: what the
  // program reads on its standard input. launcher: the words before the program's name.
  explicit Program(std::vector<std::string> arguments, rlim_t max_file_bytes = 0,
                   std::string_view input = {}, const std::vector<std::string>& launcher = {}) {
    dir_ = fs::temp_directory_path() / ("assay-cli-XXXXXX");
    std::string pattern = dir_.string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    dir_ = pattern;
    std::ofstream(dir_ / "in", std::ios::binary) << input;
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ != 0) return;
    for (const auto& [fd, name] : {std::pair{1, "out"}, {2, "err"}})
      dup2(open((dir_ / name).c_str(), O_WRONLY | O_CREAT, 0600), fd);
    dup2(open((dir_ / "in").c_str(), O_RDONLY), 0);
    if (const rlimit limit{max_file_bytes, max_file_bytes}; max_file_bytes > 0)
      setrlimit(RLIMIT_FSIZE, &limit);
    arguments.insert(arguments.begin(), ASSAY_PROGRAM);
    arguments.insert(arguments.begin(), launcher.begin(), launcher.end());
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  ~Program() { fs::remove_all(dir_); }

  pid_t pid() const { return pid_; }
  void kill_now() const { kill(pid_, SIGKILL); }
  void interrupt() const { kill(pid_, SIGINT); }
  void terminate() const { kill(pid_, SIGTERM); }

  Outcome wait() {
    int status = 0;
    rusage usage{};
    wait4(pid_, &status, 0, &usage);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), *read_file(dir_ / "out"),
            *read_file(dir_ / "err"), 1024.0 * static_cast<double>(usage.ru_maxrss)};
  }

 private:
  fs::path dir_;
  pid_t pid_;
};

inline Outcome assay(std::vector<std::string> arguments, std::string_view input = {}) {
  return Program(std::move(arguments), 0, input).wait();
}

class Cli : public ::testing::Test {
 protected:
  Cli() {
    std::string pattern = (fs::temp_directory_path() / "assay-test-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    dir_ = pattern;
  }
  ~Cli() override { fs::remove_all(dir_); }

  // A copy of the model that a test may damage.
  fs::path copy_model() {
    fs::path copy = dir_ / "model";
    fs::copy(kModel, copy, fs::copy_options::recursive);
    return copy;
  }
  void write(const fs::path& path, std::string_view text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  void patch(const fs::path& path, std::streamoff at, std::string_view bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  fs::path dir_;
};

inline std::vector<std::string> quick_run(const fs::path& out, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"run",   "arithmetic", "--model", kModel,  "--profile",
                                        "quick", "--limit",    "24",      "--out", out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// samples.jsonl without timings, by (arm, id).
inline std::map<std::string, std::string> samples_of(const fs::path& run_dir) {
  std::map<std::string, std::string> samples;
  std::istringstream lines(*read_file(run_dir / "samples.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json json = Json::parse(line);
    if (!json.contains("id")) continue;
    json.erase("timings");
    json.erase("prefill_s");
    json.erase("decode_s");
    const std::string key = json.value("arm", "") + "/" + json.value("id", "");
    EXPECT_FALSE(samples.contains(key)) << key << " twice";
    samples[key] = json.dump();
  }
  return samples;
}

// One error: exit code 2, one line that says what is wrong, and no answer that pretends otherwise.
inline void expect_error(const Outcome& o, const ::testing::Matcher<const std::string&>& message) {
  EXPECT_EQ(o.code, 2) << o.out << o.err;
  EXPECT_THAT(o.err, ::testing::AllOf(::testing::HasSubstr("assay: error: "), message));
  const auto first = o.err.find("assay: error: ");
  EXPECT_EQ(o.err.find("assay: error: ", first + 1), std::string::npos) << "more than one error:\n"
                                                                        << o.err;
}

}  // namespace assay
