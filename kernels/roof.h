// What this machine can do at best, measured in the same process as what is compared with it.
#pragma once

#include <cstddef>

#include "base/thread_pool.h"

namespace assay::kernels {

// Bytes per second at which the pool's threads read a buffer of `n_bytes` over and over (each its
// own part), best of `n_repetitions`. The buffer stays wherever it fits: read one as large as the
// data that the roof is for.
double read_bytes_per_s(ThreadPool& pool, std::size_t n_bytes, int n_repetitions);

// Float32 fused multiply-adds per second of the pool's threads together with the widest vectors of
// this machine, on registers alone, best of `n_repetitions`.
double peak_fma_per_s(ThreadPool& pool, int n_repetitions);

}  // namespace assay::kernels
