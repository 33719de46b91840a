// The absorbed projections of attention on a GPU, a matrix to a head: the query's into latent space
// and the latent's to the value, at the strides that a layer has. Checked against the reference
// sum.
#include <memory>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

struct HeadShape {
  int n_heads, n_rows, n_cols;
  int x_head_stride, y_head_stride;
};
HeadShape absorbed_key(const BenchModel& m) {
  return {m.n_heads, m.kv_lora, m.qk_nope, m.qk_head(), m.kv_row()};
}
HeadShape value_up(const BenchModel& m) {
  return {m.n_heads, m.v_head, m.kv_lora, m.kv_lora, m.v_head};
}

struct Heads {
  Heads(const HeadShape& shape, int tokens)
      : s(shape),
        n_tokens(tokens),
        weights(static_cast<double>(s.n_heads) * s.n_rows * s.n_cols),
        bytes(4 * (weights + static_cast<double>(tokens) * s.n_heads * (s.n_rows + s.n_cols))),
        n_copies(n_cold_copies(bytes)),
        host_w(bench_floats(area(s.n_heads * s.n_rows, s.n_cols), 1)),
        host_x(bench_floats(area(tokens, s.n_heads * s.x_head_stride), 2)),
        w(host_w, n_copies),
        x(host_x, n_copies),
        y(poison(area(tokens, s.n_heads * s.y_head_stride)), n_copies) {}
  void launch(int i, CudaStream stream) const {
    project_heads_cuda({.w = w.at(i),
                        .n_heads = s.n_heads,
                        .n_rows = s.n_rows,
                        .n_cols = s.n_cols,
                        .x = x.at(i),
                        .x_token_stride = s.n_heads * s.x_head_stride,
                        .x_head_stride = s.x_head_stride,
                        .y = y.at(i),
                        .y_token_stride = s.n_heads * s.y_head_stride,
                        .y_head_stride = s.y_head_stride,
                        .n_tokens = n_tokens},
                       stream);
  }
  bool is_right() const {
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      if (!is_right(y.host(i, area(n_tokens, s.n_heads * s.y_head_stride)))) return false;
    }
    return true;
  }
  // Some results of every head and part of y, the last ones among them.
  bool is_right(const std::vector<float>& got) const {
    for (int t = n_tokens - 1; t >= 0; t -= std::max(1, n_tokens / 7))
      for (int h = 0; h < s.n_heads; ++h)
        for (int r = s.n_rows - 1; r >= 0; r -= s.n_rows / 13) {
          ReferenceSum sum;
          const float* row = &host_w[area(h * s.n_rows + r, s.n_cols)];
          const float* vector = &host_x[area(t * s.n_heads + h, s.x_head_stride)];
          for (int c = 0; c < s.n_cols; ++c)
            sum.add(static_cast<double>(row[c]), static_cast<double>(vector[c]));
          const std::size_t at =
              area(t * s.n_heads + h, s.y_head_stride) + static_cast<std::size_t>(r);
          if (!sum.is_near(got[at], s.n_cols)) return false;
        }
    return true;
  }
  HeadShape s;
  int n_tokens;
  double weights, bytes;
  int n_copies;
  std::vector<float> host_w, host_x;
  Copies<float> w, x, y;
};

void heads_on(benchmark::State& state, const HeadShape& s, int n_tokens) {
  const std::string key = std::to_string(s.n_heads) + "/" + std::to_string(s.n_rows) + "/" +
                          std::to_string(s.n_cols) + "/" + std::to_string(n_tokens);
  const Heads& heads = kept<Heads>(key, [&] { return std::make_unique<Heads>(s, n_tokens); });
  if (!heads.is_right()) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, heads.n_copies, heads.bytes, heads.weights,
                [&](int i, CudaStream stream) { heads.launch(i, stream); });
  state.counters["FMA/s"] =
      benchmark::Counter(heads.weights * n_tokens, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_project_heads_cuda_benchmarks() {
  add_for_models("project_heads_cuda/absorbed_k",
                 [](benchmark::State& state, const BenchModel& m, int n_tokens) {
                   heads_on(state, absorbed_key(m), n_tokens);
                 });
  add_for_models("project_heads_cuda/value_up",
                 [](benchmark::State& state, const BenchModel& m, int n_tokens) {
                   heads_on(state, value_up(m), n_tokens);
                 });
}

}  // namespace assay::kernels
