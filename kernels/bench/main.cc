// assay-kernels: times the cpu's kernels and, where there is a GPU, its own; each checks its result
// first.
//   assay-kernels --benchmark_filter='project/avx512/rows:192.*' --benchmark_repetitions=5
//   assay-kernels --benchmark_filter='^(vq|dense).*rows:1/' --benchmark_repetitions=9
//   assay-kernels --benchmark_filter=cuda
#include <benchmark/benchmark.h>

#include <cstdio>

#include "kernels/bench/vq_bench.h"
#ifdef ASSAY_HAVE_CUDA
#include "kernels/bench/cuda_bench.h"
#endif

namespace assay::kernels {
void register_project_benchmarks();
void register_mla_attention_benchmarks();
void register_vq_benchmarks();
void register_mla_attention_cuda_benchmarks();
void register_gemm_cuda_benchmarks();
void register_moe_cuda_benchmarks();
void register_project_cuda_benchmarks();
void register_sample_cuda_benchmarks();
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

void register_gpu_benchmarks() {
#ifdef ASSAY_HAVE_CUDA
  using namespace assay::kernels;
  if (n_cuda_devices() == 0) {
    std::fprintf(stderr, "assay-kernels: no CUDA device here, so no *_cuda benchmark\n");
    return;
  }
  std::fprintf(stderr, "assay-kernels: %s, a copy moves %.0f GB/s (read and written)\n",
               cuda_device().name.c_str(), copy_bytes_per_s() * 1e-9);
  register_mla_attention_cuda_benchmarks();
  register_gemm_cuda_benchmarks();
  register_moe_cuda_benchmarks();
  register_project_cuda_benchmarks();
  register_sample_cuda_benchmarks();
#else
  std::fprintf(stderr, "assay-kernels: built without CUDA, so no *_cuda benchmark\n");
#endif
}

}  // namespace

int main(int argc, char** argv) {
  assay::kernels::register_project_benchmarks();
  assay::kernels::register_mla_attention_benchmarks();
  assay::kernels::register_vq_benchmarks();
  register_gpu_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  KeepingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  assay::kernels::print_vq_ratios(reporter.weights_per_s);
  return 0;
}
