// RMSNorm of a layer's input and of the query's latent on a GPU. Checked against the reference.
#include <memory>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/layer_cuda.h"
#include "kernels/norm.h"

namespace assay::kernels {
namespace {

constexpr float kEps = 1e-5f;

struct Norms {
  Norms(int width, int rows)
      : n(width),
        n_rows(rows),
        bytes(4.0 * (2.0 * rows * width + width)),
        n_copies(n_cold_copies(bytes)),
        host_x(bench_floats(area(rows, width), 1)),
        host_weight(bench_floats(static_cast<std::size_t>(width), 2)),
        x(host_x, n_copies),
        weight(host_weight, n_copies),
        y(poison(host_x.size()), n_copies) {}
  void launch(int i, CudaStream stream) const {
    rms_norm_cuda(x.at(i), n, weight.at(i), kEps, n, n_rows, y.at(i), n, stream);
  }
  bool is_right() const {
    std::vector<float> expected(host_x.size());
    for (int r = 0; r < n_rows; ++r)
      rms_norm_reference(&host_x[area(r, n)], host_weight.data(), kEps, n, &expected[area(r, n)]);
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      if (!all_near(expected, y.host(i, expected.size()), kRmsNormCudaBound, 1e-30)) return false;
    }
    return true;
  }
  int n, n_rows;
  double bytes;
  int n_copies;
  std::vector<float> host_x, host_weight;
  Copies<float> x, weight, y;
};

void rms_norm_on(benchmark::State& state, int n, int n_rows) {
  time_if_right(state, kept<Norms>(std::to_string(n) + "/" + std::to_string(n_rows),
                                   [=] { return std::make_unique<Norms>(n, n_rows); }));
}

}  // namespace

void register_rms_norm_cuda_benchmarks() {
  add_for_models("rms_norm_cuda/hidden", [](benchmark::State& state, const BenchModel& m,
                                            int n_rows) { rms_norm_on(state, m.hidden, n_rows); });
  add_for_models("rms_norm_cuda/q_lora", [](benchmark::State& state, const BenchModel& m,
                                            int n_rows) { rms_norm_on(state, m.q_lora, n_rows); });
}

}  // namespace assay::kernels
