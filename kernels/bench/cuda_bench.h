// What the GPU benchmarks share: a clock, the roof, and launches over data that does not fit the
// second-level cache.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

// Bytes per second, read and written, of a copy within the device: the best of several, measured
// once. What the shares are of.
double copy_bytes_per_s();
double l2_bytes();

// Seconds that a launch of an empty kernel of one block takes, of many that follow each other:
// recorded in a graph, and launched one by one. Measured once.
struct LaunchFloors {
  double graph_s, stream_s;
};
LaunchFloors launch_floors();

// Kernels and copies that `work` puts on a stream. It must be recordable.
int n_launches_of(const std::function<void(CudaStream)>& work);

// Bytes of data that a benchmark reads in turn: several times any second-level cache.
inline constexpr std::size_t kDeviceWorkingSet = std::size_t{512} << 20;

// How many copies of a launch's data that takes. At most so many that a graph has a sensible size:
// 2048 launches of micro-glm's smallest operations touch less than an H200's cache.
inline int n_cold_copies(double bytes) {
  constexpr double kMost = 2048;
  return static_cast<int>(std::min(static_cast<double>(kDeviceWorkingSet) / bytes + 1, kMost));
}

enum class Launching { kGraph, kStream };

// Times `launch(i, stream)` for i = 0 … n - 1, again and again, as one CUDA graph or launch by
// launch. An iteration is some milliseconds of that, its time is that of one launch. Reports µs,
// B/s of `bytes` (of one launch), its share of a copy, and weights/s. Returns a launch's seconds.
double time_launches(benchmark::State& state, int n, double bytes, double weights,
                     const std::function<void(int, CudaStream)>& launch,
                     Launching how = Launching::kGraph);

// The same of what knows its copies, bytes and launches, once it is right.
template <class T>
void time_if_right(benchmark::State& state, const T& launches, double weights = 0) {
  if (!launches.is_right()) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, launches.n_copies, launches.bytes, weights,
                [&](int i, CudaStream stream) { launches.launch(i, stream); });
}

// A benchmark whose clock is time_launches: some 50 ms beside what sets it up, however fast it is.
void add_cuda_benchmark(const std::string& name, const std::function<void(benchmark::State&)>& run);

// What `make` returns, kept until another key of the same type is asked for: the repetitions of a
// benchmark follow each other.
template <class T>
const T& kept(const std::string& key, const std::function<std::unique_ptr<T>()>& make) {
  static std::string known;
  static std::unique_ptr<T> last;
  if (last == nullptr || known != key) {
    last.reset();  // both together may not fit
    last = make();
    known = key;
  }
  return *last;
}

// n copies of the same values in device memory, each aligned to 256 bytes.
template <class T>
class Copies {
 public:
  Copies(const T* values, std::size_t count, int n)
      : stride_((count * sizeof(T) + 255) / 256 * 256),
        bytes_(stride_ * static_cast<std::size_t>(n)) {
    copy_to_device(at(0), values, count * sizeof(T), nullptr);
    for (int done = 1; done < n; done *= 2)
      copy_on_device(at(done), at(0), stride_ * static_cast<std::size_t>(std::min(done, n - done)),
                     nullptr);
    synchronise(nullptr);
  }
  Copies(const std::vector<T>& values, int n) : Copies(values.data(), values.size(), n) {}
  T* at(int i) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(bytes_.data()) +
                                stride_ * static_cast<std::size_t>(i));
  }
  std::vector<T> host(int i, std::size_t count) const {
    std::vector<T> out(count);
    copy_to_host(out.data(), at(i), count * sizeof(T), nullptr);
    return out;
  }

 private:
  std::size_t stride_;
  DeviceBytes bytes_;
};

}  // namespace assay::kernels
