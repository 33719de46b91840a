// assay-kernels: times the cpu kernels; each checks its result against the reference first.
//   assay-kernels --benchmark_filter='project/avx512/rows:192.*' --benchmark_repetitions=5
#include <benchmark/benchmark.h>

namespace assay::kernels {
void register_project_benchmarks();
void register_mla_attention_benchmarks();
}  // namespace assay::kernels

int main(int argc, char** argv) {
  assay::kernels::register_project_benchmarks();
  assay::kernels::register_mla_attention_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
