// What assay-kernels keeps of its benchmarks, and the exit code that follows.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace assay::kernels {

// Prints as usual, in colours on a terminal alone, and shares (of_copy, of_read) without the "/s"
// that their flag, by which they are divided by time, would bring. Keeps every benchmark's
// weights/s (the median of its repetitions if it has one) and the names of those that failed.
class KeepingReporter : public benchmark::ConsoleReporter {
 public:
  KeepingReporter() : ConsoleReporter(isatty(STDOUT_FILENO) != 0 ? OO_ColorTabular : OO_Tabular) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> printed = runs;
    for (Run& run : printed)
      for (auto& [name, counter] : run.counters)
        if (name.starts_with("of_")) counter.flags = benchmark::Counter::kDefaults;
    ConsoleReporter::ReportRuns(printed);
    for (const Run& run : runs) {
      const std::string name = run.run_name.str();
      if (run.error_occurred) {
        if (std::find(failed.begin(), failed.end(), name) == failed.end()) failed.push_back(name);
        continue;
      }
      const auto counter = run.counters.find("weights/s");
      const bool median = run.run_type == Run::RT_Aggregate && run.aggregate_name == "median";
      const bool single = run.run_type == Run::RT_Iteration && run.repetitions <= 1;
      if (counter != run.counters.end() && (median || single))
        weights_per_s[name] = counter->second.value;
    }
  }
  std::map<std::string, double> weights_per_s;
  std::vector<std::string> failed;
};

// 1 if a benchmark failed, 2 if none was asked for by its name.
inline int exit_code_of(const KeepingReporter& reporter, std::size_t n_matched) {
  return !reporter.failed.empty() ? 1 : n_matched == 0 ? 2 : 0;
}

}  // namespace assay::kernels
