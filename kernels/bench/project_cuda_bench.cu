// Dense products of one row on a GPU: GLM-5.2's shapes in every kind that a spine comes in.
#include <memory>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/project.h"
#include "kernels/project_cuda.h"
#include "kernels/quantised.h"

namespace assay::kernels {
namespace {

struct Shape {
  const char* name;
  int n_rows, n_cols;
};
constexpr Shape kShapes[] = {{"q_a", 2048, 6144},         {"q_b", 16384, 2048},
                             {"kv_a", 576, 6144},         {"o", 6144, 16384},
                             {"dense_gate", 12288, 6144}, {"lm_head", 154880, 6144}};

void project_on(benchmark::State& state, const std::string& kind, const Shape& s) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes =
      static_cast<double>(host.values.size() + host.scales.size() + host.zeros.size());
  const int n = static_cast<int>(static_cast<double>(kDeviceWorkingSet) / bytes) + 1;
  DeviceWeights memory;
  std::vector<DeviceMatrix> w;
  while (static_cast<int>(w.size()) < n) w.push_back(host.upload(memory));
  const std::vector<float> x = bench_floats(static_cast<std::size_t>(s.n_cols), 2);
  const DeviceArray<float> dx(x), y(static_cast<std::size_t>(s.n_rows));
  project_cuda(w[0], dx.data(), s.n_cols, 1, y.data(), s.n_rows, false, nullptr);
  const std::vector<float> got = y.host();
  for (int r = 0; r < s.n_rows; r += s.n_rows / 13) {
    double sum = 0, size = 0;
    for (int c = 0; c < s.n_cols; ++c) {
      const double p = host.at(r, c) * static_cast<double>(x[static_cast<std::size_t>(c)]);
      sum += p;
      size += std::abs(p);
    }
    if (std::abs(static_cast<double>(got[static_cast<std::size_t>(r)]) - sum) >
        (s.n_cols + 3) * 0x1p-24 * size) {
      state.SkipWithError("wrong result");
      return;
    }
  }
  time_launches(state, n, bytes, static_cast<double>(s.n_rows) * s.n_cols,
                [&](int i, CudaStream stream) {
                  project_cuda(w[static_cast<std::size_t>(i)], dx.data(), s.n_cols, 1, y.data(),
                               s.n_rows, false, stream);
                });
}

}  // namespace

void register_project_cuda_benchmarks() {
  for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"})
    for (const Shape& s : kShapes)
      if (std::string(kind) == "bf16" || s.n_rows < 16384)
        benchmark::RegisterBenchmark(("project_cuda/" + std::string(s.name) + "/" + kind).c_str(),
                                     [=](benchmark::State& state) { project_on(state, kind, s); })
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
}

}  // namespace assay::kernels
