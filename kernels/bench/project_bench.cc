// y = x Wᵀ in bfloat16 weights, one thread: micro-glm's and GLM-5.2's shapes at decode and prefill
// widths. Weights exceed the caches where GLM-5.2's do.
#include <algorithm>

#include "kernels/bench/bench_data.h"
#include "kernels/project.h"

namespace assay::kernels {
namespace {

struct Weights {
  Weights(int rows, int cols)
      : n_rows(rows), n_cols(cols), raw(static_cast<std::size_t>(rows) * cols) {
    for (std::size_t i = 0; i < raw.size();
         ++i) {  // cheap, and every bit pattern is a small number
      const auto bits = static_cast<std::uint32_t>(i * 2654435761u);
      raw[i] = static_cast<std::uint16_t>((bits >> 16 & 0x807Fu) | 0x3D00u);
    }
  }
  WeightMatrix view(int rows) const { return {raw.data(), WeightType::kBf16, rows, n_cols}; }
  int n_rows, n_cols;
  std::vector<std::uint16_t> raw;
};

void project_on(benchmark::State& state, CpuTarget target) {
  const int n_rows = static_cast<int>(state.range(0)), n_cols = static_cast<int>(state.range(1)),
            n_tokens = static_cast<int>(state.range(2));
  const Weights w(n_rows, n_cols);
  WeightArena arena;
  const PackedMatrix packed = PackedMatrix::pack(arena, w.view(n_rows));
  const auto x = bench_floats(static_cast<std::size_t>(n_tokens) * n_cols, 1);
  std::vector<float> y(static_cast<std::size_t>(n_tokens) * n_rows);
  std::vector<const float*> xs;
  std::vector<float*> ys;
  for (int t = 0; t < n_tokens; ++t) {
    xs.push_back(&x[static_cast<std::size_t>(t) * n_cols]);
    ys.push_back(&y[static_cast<std::size_t>(t) * n_rows]);
  }
  // In pieces that a second-level cache holds, as the backend does it.
  const int step = std::max(4, static_cast<int>((384 << 10) / (32 * n_cols)) / 4 * 4);
  const auto run = [&] {
    for (int b = 0; b < packed.n_blocks(); b += step)
      project_cpu(target, {.w = &packed,
                           .x = xs.data(),
                           .y = ys.data(),
                           .n_tokens = n_tokens,
                           .first_block = b,
                           .last_block = std::min(packed.n_blocks(), b + step),
                           .accumulate = false});
  };
  run();
  const int checked = std::min(n_rows, 64);
  std::vector<float> expected(static_cast<std::size_t>(checked)),
      got(y.begin(), y.begin() + checked);
  project_reference(w.view(checked), x.data(), 1, n_cols, expected.data(), checked, false);
  if (!(relative_error(expected, got) < n_cols * 0x1p-22)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) {
    run();
    benchmark::DoNotOptimize(y.data());
  }
  const double fma = static_cast<double>(n_rows) * n_cols * n_tokens;
  state.counters["FMA/s"] = benchmark::Counter(fma, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["weight_B/s"] = benchmark::Counter(static_cast<double>(packed.bytes()),
                                                    benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_project_benchmarks() {
  for (const CpuTarget target : usable_cpu_targets()) {
    const std::string name = "project/" + std::string(cpu_target_name(target));
    auto* bench = benchmark::RegisterBenchmark(
        name.c_str(), [target](benchmark::State& s) { project_on(s, target); });
    bench->ArgNames({"rows", "cols", "tokens"})->Unit(benchmark::kMicrosecond);
    constexpr std::pair<int, int> kShapes[] = {{192, 320},  {384, 192},   {320, 384},  {320, 96},
                                               {3072, 320}, {2048, 6144}, {6144, 2048}};
    for (const auto& [rows, cols] : kShapes)
      for (const int tokens : {1, 8, 32, 512}) bench->Args({rows, cols, tokens});
  }
}

}  // namespace assay::kernels
