// Ctrl-C: the first ends the work in order, a second one ends the process at once.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace assay::cli {

void watch_interrupts();  // SIGINT and SIGTERM, from now on
bool interrupted();

// For work of which nothing can be kept: while one of these lives, SIGINT and SIGTERM say `words`
// on standard error, delete what was half written, and end the process with kInterrupted.
class EndAtInterrupt {
 public:
  EndAtInterrupt(std::string words, const std::vector<std::filesystem::path>& half_written);
  ~EndAtInterrupt();
  EndAtInterrupt(const EndAtInterrupt&) = delete;
  EndAtInterrupt& operator=(const EndAtInterrupt&) = delete;

  struct Last {
    std::string words;
    std::vector<std::string> half_written;
  };

 private:
  Last last_;
};

}  // namespace assay::cli
