// A graph that a GPU has no memory for. A process of its own: what the driver once took for graphs
// it keeps, and tests of how much graphs take would find nothing. Needs a GPU; skips without.
#include <gtest/gtest.h>

#include <cstddef>
#include <new>
#include <vector>

#include "kernels/cuda_memory.h"

namespace assay::engine {
namespace {

// The driver's own answer, of a graph of so many copies that it needs more than odds and ends.
TEST(CudaGraphs, OneThatTheDriverHasNoMemoryForIsNone) {
  if (kernels::n_cuda_devices() == 0)
    GTEST_SKIP() << "no CUDA device here: this test shows nothing; run it on a GPU machine";
  constexpr std::size_t kCopies = 20000;
  std::vector<int> values(kCopies + 1, 0);
  values[0] = 7;
  const kernels::DeviceArray<int> device(values);
  const kernels::CudaStreamOwner stream;
  const auto record = [&] {
    kernels::RecordedGraph::begin(stream.get());
    for (std::size_t i = 0; i < kCopies; ++i)
      kernels::copy_on_device(device.data() + i + 1, device.data() + i, sizeof(int), stream.get());
    return kernels::RecordedGraph::end(stream.get());
  };
  {
    std::vector<kernels::DeviceBytes> taken;
    for (std::size_t piece = kernels::cuda_device().free_bytes; piece >= 4096;) {
      try {
        taken.emplace_back(piece);
      } catch (const std::bad_alloc&) {
        piece /= 2;
      }
    }
    EXPECT_FALSE(record().has_value());
  }
  const auto graph = record();
  ASSERT_TRUE(graph.has_value());
  graph->launch(stream.get());
  EXPECT_EQ(device.host(kCopies + 1, stream.get()), std::vector<int>(kCopies + 1, 7));
}

}  // namespace
}  // namespace assay::engine
