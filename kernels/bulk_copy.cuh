// Bulk copies to shared memory, by hardware; a barrier there counts the bytes that have arrived,
// and enters its next phase with the last of those that are expected.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "kernels/mma_tile.cuh"

namespace assay::kernels {

// How many lanes of a warp say that it has read a stage: one, behind a __syncwarp. Compute
// Sanitizer's racecheck does not see what the others read as ordered by that, so for it
// (ASSAY_RACECHECK set) every lane arrives for itself. In clusters (mla_attention_cluster.cuh) all
// that weigh do, not four lanes for them, and what fetches first waits for its cluster, as
// racecheck has the others wait for that. Nothing else differs.
inline int arrivals_of_warp() {
  static const int n = std::getenv("ASSAY_RACECHECK") != nullptr ? 32 : 1;
  return n;
}

// A phase ends with n_arrivals, and all bytes that they expect.
__device__ inline void init_arrivals(std::uint64_t* barrier, int n_arrivals = 1) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(n_arrivals)
               : "memory");
}
__device__ inline void publish_barriers() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void expect_arrivals(unsigned barrier, int n_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(n_bytes)
               : "memory");
}
__device__ inline void expect_arrivals(std::uint64_t* barrier, int n_bytes) {
  expect_arrivals(shared_address(barrier), n_bytes);
}
__device__ inline void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive(std::uint64_t* barrier) { arrive(shared_address(barrier)); }
__device__ inline void copy_later(void* to, const void* from, int n_bytes, std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(n_bytes), "r"(shared_address(barrier))
      : "memory");
}
__device__ inline void await_arrivals(unsigned barrier, unsigned phase) {
  unsigned done = 0;
  while (done == 0)
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
        : "memory");
}
__device__ inline void await_arrivals(std::uint64_t* barrier, unsigned phase) {
  await_arrivals(shared_address(barrier), phase);
}

}  // namespace assay::kernels
