// Progress on stderr: one bar that redraws itself on a terminal, a plain line every few seconds
// elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "harness/runner.h"

namespace assay::cli {

// Pure. "[####······]  57/300  812 tok/s  eta 1:05"; `width` 0 leaves the bar out.
std::string progress_text(const harness::Progress& progress, int width);

class ProgressPrinter {
 public:
  ProgressPrinter();  // looks whether stderr is a terminal
  void show(const harness::Progress& progress);

 private:
  bool terminal_;
  double last_s_ = 0;
};

// A line that says what goes on, and a bar of n_done of n_total.
class Bar {
 public:
  explicit Bar(const std::string& what);
  void show(int n_done, int n_total);

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  harness::Progress progress_;
  ProgressPrinter printer_;
};

}  // namespace assay::cli
