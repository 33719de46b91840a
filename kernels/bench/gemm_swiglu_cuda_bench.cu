// Gate and up with silu of a prompt's rows on a GPU's tensor cores: GLM-5.2's shared expert and
// dense MLP, and micro-glm's, in every kind that a spine comes in. Each result is checked first.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/gemm_bench_data.cuh"
#include "kernels/bench/spine_bench_data.cuh"

namespace assay::kernels {
namespace {

// Of gate and up each.
struct Shape {
  const char* name;
  int n_rows, n_cols;
};
constexpr Shape kShapes[] = {
    {"glm-5.2/shared", 2048, 6144}, {"glm-5.2/dense", 12288, 6144}, {"micro-glm/shared", 96, 320}};

// silu(gate x) · (up x) in double of operands rounded to bfloat16; gate and up are one matrix. Off
// by what two sums on tensor cores may be (gemm_testing.cuh), silu, nowhere steeper than 1.1,
// eight roundings to float32, and one to bfloat16.
bool is_right(const HostMatrix& m, const Shape& s, int row, const float* x, Bf16 got) {
  double sum = 0, size = 0;
  for (int c = 0; c < s.n_cols; ++c) {
    const double p = as_bf16(m.at(row, c)) * as_bf16(static_cast<double>(x[c]));
    sum += p;
    size += std::abs(p);
  }
  const double of_sum = (s.n_cols + 16) * 0x1p-22 * size, silu = sum / (1 + std::exp(-sum));
  const double of_h = 1.1 * of_sum * (std::abs(sum) + of_sum) + std::abs(silu) * of_sum +
                      8 * 0x1p-24 * std::abs(silu * sum);
  const double bound = of_h + 0x1p-8 * (std::abs(silu * sum) + of_h);
  const auto value = static_cast<double>(std::bit_cast<float>(std::uint32_t{got} << 16));
  return std::abs(value - silu * sum) <= bound;
}

void swiglu_on(benchmark::State& state, const std::string& kind, const Shape& s, int n_tokens) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = 2 * file_bytes(host);
  const int n = std::min(n_cold_copies(bytes), 32);
  const std::string shape = "gemm_swiglu/" + std::string(s.name) + "/";
  const MatrixCopies& w =
      kept<MatrixCopies>(shape + kind, [&] { return std::make_unique<MatrixCopies>(host, 2 * n); });
  const Activations& a = kept<Activations>(shape + std::to_string(n_tokens), [&] {
    return std::make_unique<Activations>(n_tokens, s.n_cols);
  });
  const int stride = bf16_stride(s.n_rows);
  constexpr Bf16 kNan = 0x7FC0;
  const DeviceArray<Bf16> h(std::vector<Bf16>(area(n_tokens, stride), kNan)),
      room(decode_room(w.at(0), w.at(1)));
  const auto run = [&](int i, CudaStream stream) {
    gemm_swiglu_cuda(w.at(2 * i), w.at(2 * i + 1), a.rounded.data(), n_tokens, h.data(),
                     {room.data(), room.size()}, stream);
  };
  run(n - 1, nullptr);
  const std::vector<Bf16> got = h.host();
  for (int t = 0; t < n_tokens; t += std::max(1, n_tokens / 7))
    for (int r = s.n_rows - 1; r >= 0; r -= s.n_rows / 13)
      if (!is_right(host, s, r, &a.x[area(t, s.n_cols)],
                    got[area(t, stride) + static_cast<std::size_t>(r)])) {
        state.SkipWithError("wrong result");
        return;
      }
  time_launches(state, n, bytes, 2.0 * n_tokens * s.n_rows * s.n_cols, run);
  add_flops(state, 4.0 * s.n_rows * s.n_cols * n_tokens);
}

}  // namespace

void register_gemm_swiglu_cuda_benchmarks() {
  for (const int n_tokens : {32, 128, 512, 2048})
    for (const Shape& s : kShapes)
      for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"})
        add_cuda_benchmark("gemm_swiglu_cuda/" + std::string(s.name) +
                               "/rows:" + std::to_string(n_tokens) + "/" + kind,
                           [=](benchmark::State& state) { swiglu_on(state, kind, s, n_tokens); });
}

}  // namespace assay::kernels
