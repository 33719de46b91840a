// For tests on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <vector>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

// Whatever is not written shows.
inline DeviceArray<float> poisoned(std::size_t n) {
  return DeviceArray<float>(std::vector<float>(n, std::nanf("")));
}

// Compute Sanitizer's racecheck takes some hundred times as long: sizes that still have every kind
// of tile, stage and split, and no more.
inline bool under_racecheck() { return std::getenv("ASSAY_RACECHECK") != nullptr; }
template <class T>
std::vector<T> sizes(std::initializer_list<T> all, std::initializer_list<T> under_racecheck_only) {
  return under_racecheck() ? under_racecheck_only : all;
}

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    if (n_cuda_devices() == 0)
      GTEST_SKIP() << "no CUDA device here: this test shows nothing; run it on a GPU machine";
  }
};

}  // namespace assay::kernels
