// For benchmarks of products on tensor cores: rows of x as they read them, and what they count.
#pragma once

#include <cuda_bf16.h>

#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/gemm_cuda.h"

namespace assay::kernels {

inline double as_bf16(double v) {
  return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(v))));
}

inline void add_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

struct Activations {
  Activations(int n_tokens, int n_cols)
      : x(bench_floats(area(n_tokens, n_cols), 2)), rounded(area(n_tokens, bf16_stride(n_cols))) {
    const DeviceArray<float> dx(x);
    to_bf16_cuda(dx.data(), n_cols, n_tokens, n_cols, rounded.data(), nullptr);
    synchronise(nullptr);
  }
  std::vector<float> x;
  DeviceArray<Bf16> rounded;
};

}  // namespace assay::kernels
