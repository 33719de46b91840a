// What the GPU benchmarks share: a clock, the roof, and a graph of launches over data that does not
// fit the second-level cache.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

// Bytes per second, read and written, of a copy within the device: the best of several, measured
// once. What the shares are of.
double copy_bytes_per_s();

// Bytes of weights that a benchmark reads in turn: several times any second-level cache.
inline constexpr std::size_t kDeviceWorkingSet = std::size_t{512} << 20;

// Times `launch(i, stream)` for i = 0 … n - 1 as one CUDA graph, again and again; an iteration is
// one launch. Reports µs, B/s of `bytes` (of one launch), its share of a copy, and weights/s.
void time_launches(benchmark::State& state, int n, double bytes, double weights,
                   const std::function<void(int, CudaStream)>& launch);

}  // namespace assay::kernels
