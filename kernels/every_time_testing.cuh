// Launches of one problem again and again, each held to the bits of the first. For tests on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/cuda_memory.h"

namespace assay::kernels {

// ASSAY_TEST_LAUNCHES: how many of each problem, for a machine that has the time.
inline int n_launches() {
  const char* text = std::getenv("ASSAY_TEST_LAUNCHES");
  const int n = text != nullptr ? std::atoi(text) : 200;
  EXPECT_GT(n, 0) << "ASSAY_TEST_LAUNCHES is no count: without a launch nothing is tested";
  return n;
}

// What has been seen of launches 1, 2, ….
struct Seen {
  int n_bad, first_bad, last_bad;
};
// Whether a launch's output is what it was, bit for bit. Grid: any.
static __global__ void look_at(const float* got, const float* expected, std::size_t n, int launch,
                               Seen* seen) {
  bool differs = false;
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n;
       i += std::size_t{gridDim.x} * blockDim.x)
    differs |= __float_as_uint(got[i]) != __float_as_uint(expected[i]);
  if (!differs || atomicExch(&seen->last_bad, launch) == launch) return;
  atomicAdd(&seen->n_bad, 1);
  atomicCAS(&seen->first_bad, 0, launch);
}
// Of the first bad launch, before the next overwrites it. Grid: any.
static __global__ void keep_first_bad(const float* from, std::size_t n, int launch,
                                      const Seen* seen, float* to) {
  if (seen->first_bad != launch) return;
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n;
       i += std::size_t{gridDim.x} * blockDim.x)
    to[i] = from[i];
}

// An output in device memory that should be after every launch what it is now: the first launch's,
// of which none may be a NaN. It is looked at on the GPU, which so has no rest: what another
// program's turn does to a launch midway shows only then.
class Watched {
 public:
  // beside: what the first bad launch has left there is kept too.
  explicit Watched(const DeviceArray<float>& out, const DeviceArray<float>* beside = nullptr)
      : out_(&out),
        beside_(beside),
        expected_(out.host()),
        should_be_(expected_),
        kept_(out.size()),
        seen_(std::vector<Seen>(1)) {
    EXPECT_TRUE(std::none_of(expected_.begin(), expected_.end(), [](float v) {
      return std::isnan(v);
    })) << "the first launch has left some of its output unwritten";
    if (beside == nullptr) return;
    expected_beside_ = beside->host();
    kept_beside_ = DeviceArray<float>(beside->size());
  }
  Watched(const Watched&) = delete;  // others' kernels have its pointers
  void look(int launch) {
    constexpr int kBlocks = 64, kThreads = 256;
    Seen* seen = seen_.data();
    look_at<<<kBlocks, kThreads>>>(out_->data(), should_be_.data(), out_->size(), launch, seen);
    keep_first_bad<<<kBlocks, kThreads>>>(out_->data(), out_->size(), launch, seen, kept_.data());
    if (beside_ != nullptr)
      keep_first_bad<<<kBlocks, kThreads>>>(beside_->data(), beside_->size(), launch, seen,
                                            kept_beside_.data());
    CUDA_CHECK(cudaGetLastError());
  }
  // Nothing where none differs. Waits for all launches.
  std::string bad_launches() const {
    const Seen seen = seen_.host().front();
    if (seen.n_bad == 0) return {};
    return std::to_string(seen.n_bad) + " launches differ; the first, launch " +
           std::to_string(seen.first_bad) + ": ";
  }
  std::vector<float> first_bad() const { return kept_.host(); }
  std::vector<float> first_beside() const { return kept_beside_.host(); }
  const std::vector<float>& expected() const { return expected_; }
  const std::vector<float>& expected_beside() const { return expected_beside_; }

 private:
  const DeviceArray<float>*out_, *beside_;
  std::vector<float> expected_, expected_beside_;
  DeviceArray<float> should_be_, kept_, kept_beside_;
  DeviceArray<Seen> seen_;
};

// launch() writes all of `out`.
template <class Launch>
void expect_same_every_time(const DeviceArray<float>& out, const Launch& launch,
                            const std::string& what) {
  launch();
  Watched watched(out);
  for (int i = 1; i <= n_launches(); ++i) {
    launch();
    watched.look(i);
  }
  EXPECT_EQ(watched.bad_launches(), "") << what;
}

}  // namespace assay::kernels
