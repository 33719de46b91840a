// Dense products of one row on a GPU, and gate and up with silu: GLM-5.2's shapes and micro-glm's
// in every kind that a spine comes in.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  const char* name;
  int n_rows, n_cols;
};
constexpr Shape kShapes[] = {{"q_a", 2048, 6144},
                             {"q_b", 16384, 2048},
                             {"kv_a", 576, 6144},
                             {"o", 6144, 16384},
                             {"dense_gate", 12288, 6144},
                             {"shared_down", 6144, 2048},
                             {"lm_head", 154880, 6144},
                             {"micro-glm/q_a", 192, 320},
                             {"micro-glm/q_b", 384, 192},
                             {"micro-glm/kv_a", 160, 320},
                             {"micro-glm/o", 320, 384},
                             {"micro-glm/shared_down", 320, 96},
                             {"micro-glm/lm_head", 3072, 320}};
// Of gate and up each.
constexpr Shape kGates[] = {
    {"shared", 2048, 6144}, {"dense", 12288, 6144}, {"micro-glm/shared", 96, 320}};

void project_on(benchmark::State& state, const std::string& kind, const Shape& s) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = file_bytes(host);
  const int n = n_cold_copies(bytes);
  const MatrixCopies& w = kept<MatrixCopies>(
      kind + "/" + s.name, [&] { return std::make_unique<MatrixCopies>(host, n); });
  const std::vector<float> x = bench_floats(static_cast<std::size_t>(s.n_cols), 2);
  const DeviceArray<float> dx(x), y(poison(static_cast<std::size_t>(s.n_rows)));
  const auto launch = [&](int i, CudaStream stream) {
    project_cuda(w.at(i), dx.data(), s.n_cols, 1, y.data(), s.n_rows, false, stream);
  };
  launch(n - 1, nullptr);
  const std::vector<float> got = y.host();
  for (int r = s.n_rows - 1; r >= 0; r -= s.n_rows / 13)
    if (!is_product(host, r, x.data(), got[static_cast<std::size_t>(r)])) {
      state.SkipWithError("wrong result");
      return;
    }
  time_launches(state, n, bytes, static_cast<double>(s.n_rows) * s.n_cols, launch);
}

// The double of silu(gate x) · (up x), and what the errors of two float32 chains, silu, nowhere
// steeper than 1.1, and eight roundings make of it. Gate and up are one matrix.
bool is_swiglu(const HostMatrix& m, const Shape& s, int row, const float* x, float got) {
  ReferenceSum sum;
  for (int c = 0; c < s.n_cols; ++c) sum.add(m.at(row, c), static_cast<double>(x[c]));
  const double chain = (s.n_cols + 3) * 0x1p-24 * sum.size;
  const double silu = sum.sum / (1 + std::exp(-sum.sum));
  const double bound = 1.1 * chain * (std::abs(sum.sum) + chain) + std::abs(silu) * chain +
                       8 * 0x1p-24 * std::abs(silu * sum.sum);
  return std::abs(static_cast<double>(got) - silu * sum.sum) <= bound;
}

void swiglu_on(benchmark::State& state, const std::string& kind, const Shape& s) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = 2 * file_bytes(host);
  const int n = n_cold_copies(bytes);
  const MatrixCopies& w = kept<MatrixCopies>(
      "two " + kind + "/" + s.name, [&] { return std::make_unique<MatrixCopies>(host, 2 * n); });
  const std::vector<float> x = bench_floats(static_cast<std::size_t>(s.n_cols), 2);
  const DeviceArray<float> dx(x), h(poison(static_cast<std::size_t>(s.n_rows)));
  const auto launch = [&](int i, CudaStream stream) {
    swiglu_cuda(w.at(2 * i), w.at(2 * i + 1), dx.data(), s.n_cols, 1, h.data(), stream);
  };
  launch(n - 1, nullptr);
  const std::vector<float> got = h.host();
  for (int r = s.n_rows - 1; r >= 0; r -= s.n_rows / 13)
    if (!is_swiglu(host, s, r, x.data(), got[static_cast<std::size_t>(r)])) {
      state.SkipWithError("wrong result");
      return;
    }
  time_launches(state, n, bytes, 2.0 * s.n_rows * s.n_cols, launch);
}

}  // namespace

void register_project_cuda_benchmarks() {
  constexpr int kMostRowsOfCodes = 16384;  // a head is bf16
  for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"}) {
    for (const Shape& s : kShapes)
      if (std::string(kind) == "bf16" || s.n_rows <= kMostRowsOfCodes)
        add_cuda_benchmark("project_cuda/" + std::string(s.name) + "/" + kind,
                           [=](benchmark::State& state) { project_on(state, kind, s); });
    for (const Shape& s : kGates)
      add_cuda_benchmark("swiglu_cuda/" + std::string(s.name) + "/" + kind,
                         [=](benchmark::State& state) { swiglu_on(state, kind, s); });
  }
}

}  // namespace assay::kernels
