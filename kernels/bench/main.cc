// assay-kernels: times the cpu kernels; each checks its result against the reference first.
//   assay-kernels --benchmark_filter='project/avx512/rows:192.*' --benchmark_repetitions=5
//   assay-kernels --benchmark_filter='^(vq|dense).*rows:1/' --benchmark_repetitions=9
#include <benchmark/benchmark.h>

#include "kernels/bench/vq_bench.h"

namespace assay::kernels {
void register_project_benchmarks();
void register_mla_attention_benchmarks();
void register_vq_benchmarks();
}  // namespace assay::kernels

namespace {

// Prints as usual, and keeps every benchmark's weights/s: the median of its repetitions if it has
// one.
class KeepingReporter : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      const auto counter = run.counters.find("weights/s");
      const bool median = run.run_type == Run::RT_Aggregate && run.aggregate_name == "median";
      const bool single = run.run_type == Run::RT_Iteration && run.repetitions <= 1;
      if (counter != run.counters.end() && (median || single))
        weights_per_s[run.run_name.str()] = counter->second.value;
    }
  }
  std::map<std::string, double> weights_per_s;
};

}  // namespace

int main(int argc, char** argv) {
  assay::kernels::register_project_benchmarks();
  assay::kernels::register_mla_attention_benchmarks();
  assay::kernels::register_vq_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  KeepingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  assay::kernels::print_vq_ratios(reporter.weights_per_s);
  return 0;
}
