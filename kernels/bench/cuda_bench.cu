#include <algorithm>
#include <optional>

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

template <class Work>
float least_milliseconds(int n_tries, CudaStream stream, const Work& work) {
  float least = milliseconds(stream, work);
  for (int i = 1; i < n_tries; ++i) least = std::min(least, milliseconds(stream, work));
  return least;
}

__global__ void nothing(int) {
  await_previous();
  let_next_begin();
}

// All launches of a pass, recorded or not.
class Pass {
 public:
  Pass(std::function<void(CudaStream)> work, Launching how, CudaStream stream)
      : work_(std::move(work)), stream_(stream) {
    work_(stream_);  // whatever is set up once
    synchronise(stream_);
    if (how == Launching::kStream) return;
    RecordedGraph::begin(stream_);
    work_(stream_);
    graph_ = RecordedGraph::end(stream_);
    CHECK(graph_.has_value()) << "no memory for a graph: the launches would be timed instead";
  }
  void operator()() const {
    if (graph_.has_value())
      graph_->launch(stream_);
    else
      work_(stream_);
  }

 private:
  std::function<void(CudaStream)> work_;
  CudaStream stream_;
  std::optional<RecordedGraph> graph_;
};

double seconds_of_empty_launch(Launching how) {
  constexpr int kLaunches = 512, kTries = 20;
  const CudaStreamOwner stream;
  const Pass pass(
      [](CudaStream s) {
        for (int i = 0; i < kLaunches; ++i) overlapped(nothing, dim3(1), 32, 0, s, i);
      },
      how, stream.get());
  return static_cast<double>(least_milliseconds(kTries, stream.get(), pass)) * 1e-3 / kLaunches;
}

}  // namespace

double copy_bytes_per_s() {
  static const double best = [] {
    constexpr std::size_t kBytes = std::size_t{1} << 30;
    constexpr int kTries = 20;
    const DeviceBytes from(kBytes), to(kBytes);
    const CudaStreamOwner stream;
    CUDA_CHECK(cudaMemsetAsync(from.data(), 1, kBytes, stream.get()));
    const float least = least_milliseconds(kTries, stream.get(), [&] {
      copy_on_device(to.data(), from.data(), kBytes, stream.get());
    });
    return 2.0 * static_cast<double>(kBytes) / (static_cast<double>(least) * 1e-3);
  }();
  return best;
}

double l2_bytes() {
  int device = 0, n_bytes = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&n_bytes, cudaDevAttrL2CacheSize, device));
  return n_bytes;
}

LaunchFloors launch_floors() {
  static const LaunchFloors floors = {seconds_of_empty_launch(Launching::kGraph),
                                      seconds_of_empty_launch(Launching::kStream)};
  return floors;
}

int n_launches_of(const std::function<void(CudaStream)>& work) {
  const CudaStreamOwner stream;
  RecordedGraph::begin(stream.get());
  work(stream.get());
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(stream.get(), &graph));
  std::size_t n = 0;
  CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &n));
  CUDA_CHECK(cudaGraphDestroy(graph));
  return static_cast<int>(n);
}

double time_launches(benchmark::State& state, int n, double bytes, double weights,
                     const std::function<void(int, CudaStream)>& launch, Launching how) {
  constexpr double kIterationMs = 4;
  const double copy = copy_bytes_per_s();
  synchronise(nullptr);  // what set the data up: the clock's stream does not wait for that one
  const CudaStreamOwner stream;
  const Pass pass(
      [&](CudaStream s) {
        for (int i = 0; i < n; ++i) launch(i, s);
      },
      how, stream.get());
  const double pass_ms = least_milliseconds(2, stream.get(), pass);
  const int n_passes = std::clamp(static_cast<int>(kIterationMs / pass_ms), 1, 1000);
  double total_s = 0;
  for (auto _ : state) {
    const float ms = milliseconds(stream.get(), [&] {
      for (int i = 0; i < n_passes; ++i) pass();
    });
    const double launch_s = static_cast<double>(ms) * 1e-3 / n_passes / n;
    state.SetIterationTime(launch_s);
    total_s += launch_s;
  }
  const auto rate = [](double v) {
    return benchmark::Counter(v, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["B/s"] = rate(bytes);
  state.counters["of_copy"] = rate(bytes / copy);
  if (weights > 0) state.counters["weights/s"] = rate(weights);
  return total_s / static_cast<double>(state.iterations());
}

void add_cuda_benchmark(const std::string& name,
                        const std::function<void(benchmark::State&)>& run) {
  constexpr int kIterations = 10;
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(kIterations);
}

}  // namespace assay::kernels
