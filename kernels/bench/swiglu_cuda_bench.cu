// Gate and up with silu of one row on a GPU and of a few: GLM-5.2's shapes and micro-glm's in every
// kind that a spine comes in.
#include <algorithm>
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
// Of gate and up each.
constexpr Shape kGates[] = {
    {"shared", 2048, 6144}, {"dense", 12288, 6144}, {"micro-glm/shared", 96, 320}};

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

// Of n_tokens rows of x. What is read is counted once, however many they are.
void swiglu_on(benchmark::State& state, const std::string& kind, const Shape& s, int n_tokens) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = 2 * file_bytes(host);
  const int n = n_cold_copies(bytes);
  const MatrixCopies& w = kept<MatrixCopies>(
      "two " + kind + "/" + s.name, [&] { return std::make_unique<MatrixCopies>(host, 2 * n); });
  const std::vector<float> x = bench_floats(area(n_tokens, s.n_cols), 2);
  const DeviceArray<float> dx(x), h(poison(area(n_tokens, s.n_rows)));
  const auto launch = [&](int i, CudaStream stream) {
    swiglu_cuda(w.at(2 * i), w.at(2 * i + 1), dx.data(), s.n_cols, n_tokens, h.data(), stream);
  };
  launch(n - 1, nullptr);
  const std::vector<float> got = h.host();
  for (int t = 0; t < n_tokens; ++t)
    for (int r = s.n_rows - 1; r >= 0; r -= s.n_rows / 13)
      if (!is_swiglu(host, s, r, &x[area(t, s.n_cols)],
                     got[area(t, s.n_rows) + static_cast<std::size_t>(r)])) {
        state.SkipWithError("wrong result");
        return;
      }
  time_launches(state, n, bytes, 2.0 * n_tokens * s.n_rows * s.n_cols, launch);
}

}  // namespace

void register_swiglu_cuda_benchmarks() {
  for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"}) {
    for (const Shape& s : kGates)
      add_cuda_benchmark("swiglu_cuda/" + std::string(s.name) + "/" + kind,
                         [=](benchmark::State& state) { swiglu_on(state, kind, s, 1); });
    for (const Shape& s : {kGates[0], kGates[1]})
      for (const int n_tokens : {2, 4, 8})
        add_cuda_benchmark(
            "swiglu_cuda/" + std::string(s.name) + "/" + kind + "/rows:" + std::to_string(n_tokens),
            [=](benchmark::State& state) { swiglu_on(state, kind, s, n_tokens); });
  }
}

}  // namespace assay::kernels
