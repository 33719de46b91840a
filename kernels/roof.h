// What this machine can do at best, measured in the same process as what is compared with it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace assay::kernels {

// Bytes per second at which the pool's threads read a buffer of `n_bytes` over and over (each its
// own part): over `n_passes` together, whatever interrupts them, as a decode of as many tokens is
// timed. The buffer stays wherever it fits: read one as large as the data that the roof is for.
double read_bytes_per_s(ThreadPool& pool, std::size_t n_bytes, int n_passes);

// The sum of 32-bit words modulo 2^32: what reading them costs and little else.
std::uint32_t read_words(const std::uint32_t* words, std::size_t n_words);

// The weights that a decoded token reads: some always, of each layer's experts a few.
struct TokenReads {
  std::size_t always_bytes, expert_bytes;  // expert_bytes: of one expert in one layer
  int n_layers, n_experts, n_experts_per_token;
};

// Tokens per second at which the pool's threads merely read what a token reads, experts drawn anew
// for each token, one loop to a layer. Unlike the buffer above these bytes come from a set as large
// as all weights, of which a shared cache may hold only a part.
double token_reads_per_s(ThreadPool& pool, const TokenReads& reads, int n_tokens);

// Float32 fused multiply-adds per second of the pool's threads together with the widest vectors of
// this machine, on registers alone, best of `n_repetitions`.
double peak_fma_per_s(ThreadPool& pool, int n_repetitions);

}  // namespace assay::kernels
