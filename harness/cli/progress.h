// Progress on stderr: one bar that redraws itself on a terminal, a plain line every few seconds
// elsewhere.
#pragma once

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

}  // namespace assay::cli
