// assay-kernels: times the cpu's kernels and, where there is a GPU, its own; each checks its result
// first. Exit code 1 if one computed something wrong, 2 if none has the name that was asked for.
//   assay-kernels --benchmark_filter='project/avx512/rows:192.*' --benchmark_repetitions=5
//   assay-kernels --benchmark_filter='^(vq|dense).*rows:1/' --benchmark_repetitions=9
//   assay-kernels --benchmark_filter=vq_bound --benchmark_counters_tabular=true
//   assay-kernels --benchmark_filter=cuda --benchmark_repetitions=12 --benchmark_out=new.json
//   assay compare old.json new.json
#include <cmath>
#include <cstdio>

#include "kernels/bench/reporter.h"
#include "kernels/bench/vq_bench.h"
#ifdef ASSAY_HAVE_CUDA
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#endif

namespace assay::kernels {
void register_project_benchmarks();
void register_mla_attention_benchmarks();
void register_vq_benchmarks();
void register_vq_bound_benchmarks();
}  // namespace assay::kernels

namespace {

void register_gpu_benchmarks() {
#ifdef ASSAY_HAVE_CUDA
  using namespace assay::kernels;
  if (n_cuda_devices() == 0) {
    std::fprintf(stderr, "assay-kernels: no CUDA device here, so no *_cuda benchmark\n");
    return;
  }
  // What `assay compare` holds against the other file's.
  const std::string copy = std::to_string(std::lround(copy_bytes_per_s() * 1e-9));
  benchmark::AddCustomContext("gpu", cuda_device().name);
  benchmark::AddCustomContext("gpu_copy_GB_per_s", copy);
  benchmark::AddCustomContext("gpu_l2_MiB", std::to_string(std::lround(l2_bytes() / 0x1p20)));
  std::fprintf(stderr, "assay-kernels: %s, a copy moves %s GB/s (read and written)\n",
               cuda_device().name.c_str(), copy.c_str());
  for (const auto add : {register_append_index_cuda_benchmarks, register_append_kv_cuda_benchmarks,
                         register_embed_cuda_benchmarks, register_gemm_cuda_benchmarks,
                         register_gemm_swiglu_cuda_benchmarks, register_indexer_cuda_benchmarks,
                         register_mla_attention_cuda_benchmarks, register_moe_cuda_benchmarks,
                         register_moe_gemm_cuda_benchmarks, register_moe_layer_cuda_benchmarks,
                         register_project_cuda_benchmarks, register_project_heads_cuda_benchmarks,
                         register_rms_norm_cuda_benchmarks, register_rope_cuda_benchmarks,
                         register_route_cuda_benchmarks, register_sample_cuda_benchmarks,
                         register_sum_parts_cuda_benchmarks, register_swiglu_cuda_benchmarks,
                         register_weight_upload_cuda_benchmarks})
    add();
#else
  std::fprintf(stderr, "assay-kernels: built without CUDA, so no *_cuda benchmark\n");
#endif
}

}  // namespace

int main(int argc, char** argv) {
  assay::kernels::register_project_benchmarks();
  assay::kernels::register_mla_attention_benchmarks();
  assay::kernels::register_vq_benchmarks();
  assay::kernels::register_vq_bound_benchmarks();
  register_gpu_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  assay::kernels::KeepingReporter reporter;
  const std::size_t n_matched = benchmark::RunSpecifiedBenchmarks(&reporter);
  assay::kernels::print_vq_ratios(reporter.weights_per_s);
  for (const std::string& name : reporter.failed)
    std::fprintf(stderr, "assay-kernels: %s failed: its line above says why\n", name.c_str());
  return exit_code_of(reporter, n_matched);
}
