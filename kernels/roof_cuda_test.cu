// What is measured as a GPU's best lies below what its data sheet allows, and not far: a program of
// its own, for others on that GPU, or a sanitizer, would take their share.
#include <gtest/gtest.h>

#include "kernels/cuda_check.cuh"
#include "kernels/cuda_memory.h"
#include "kernels/cuda_testing.cuh"
#include "kernels/roof_cuda.h"

namespace assay::kernels {
namespace {

double attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

using CudaRoof = Cuda;

TEST_F(CudaRoof, ReadsAreAsFastAsItsMemoryIs) {
  // Clocks in kHz; two words a clock, each as wide as the bus.
  const double most =
      2e3 * attribute(cudaDevAttrMemoryClockRate) * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
  const double share = read_bytes_per_s_cuda() / most;
  RecordProperty("share", std::to_string(share));
  EXPECT_GT(share, 0.7);
  EXPECT_LE(share, 1.01);
}

TEST_F(CudaRoof, ProductsAreAsFastAsItsTensorCoresAre) {
  if (cuda_device().major != 9) GTEST_SKIP() << "of sm_90 only is the rate known here";
  // 512 multiply-adds a clock of each of the four tensor cores.
  const double most = 4 * 512 * 1e3 * n_multiprocessors() * attribute(cudaDevAttrClockRate);
  const double share = half_fma_per_s_cuda() / most;
  RecordProperty("share", std::to_string(share));
  EXPECT_GT(share, 0.5);
  EXPECT_LE(share, 1.01);
}

}  // namespace
}  // namespace assay::kernels
