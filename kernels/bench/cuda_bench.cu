#include <algorithm>

#include "kernels/bench/cuda_bench.h"
#include "kernels/cuda_check.cuh"

namespace assay::kernels {
namespace {

// Milliseconds that `work` takes on the stream.
template <class Work>
float milliseconds(CudaStream stream, const Work& work) {
  cudaEvent_t begin, end;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  CUDA_CHECK(cudaEventRecord(begin, stream));
  work();
  CUDA_CHECK(cudaEventRecord(end, stream));
  CUDA_CHECK(cudaEventSynchronize(end));
  float ms = 0;
  CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
  CUDA_CHECK(cudaEventDestroy(begin));
  CUDA_CHECK(cudaEventDestroy(end));
  return ms;
}

}  // namespace

double copy_bytes_per_s() {
  static const double best = [] {
    constexpr std::size_t kBytes = std::size_t{1} << 30;
    const DeviceBytes from(kBytes), to(kBytes);
    const CudaStreamOwner stream;
    CUDA_CHECK(cudaMemsetAsync(from.data(), 1, kBytes, stream.get()));
    float least = 1e30f;
    for (int i = 0; i < 20; ++i)
      least = std::min(least, milliseconds(stream.get(), [&] {
                         copy_on_device(to.data(), from.data(), kBytes, stream.get());
                       }));
    return 2.0 * static_cast<double>(kBytes) / (static_cast<double>(least) * 1e-3);
  }();
  return best;
}

void time_launches(benchmark::State& state, int n, double bytes, double weights,
                   const std::function<void(int, CudaStream)>& launch) {
  const double copy = copy_bytes_per_s();
  const CudaStreamOwner stream;
  for (int i = 0; i < n; ++i) launch(i, stream.get());  // whatever is set up once
  synchronise(stream.get());
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < n; ++i) launch(i, stream.get());
  CUDA_CHECK(cudaStreamEndCapture(stream.get(), &graph));
  CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CUDA_CHECK(cudaGraphLaunch(exec, stream.get()));
  for (auto _ : state) {
    const float ms = milliseconds(
        stream.get(), [&] { CUDA_CHECK(cudaGraphLaunch(exec, stream.get())) << n << " launches"; });
    state.SetIterationTime(static_cast<double>(ms) * 1e-3 / n);
  }
  CUDA_CHECK(cudaGraphExecDestroy(exec));
  CUDA_CHECK(cudaGraphDestroy(graph));
  const auto rate = [](double v) {
    return benchmark::Counter(v, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["B/s"] = rate(bytes);
  state.counters["of_copy"] = rate(bytes / copy);
  if (weights > 0) state.counters["weights/s"] = rate(weights);
}

}  // namespace assay::kernels
