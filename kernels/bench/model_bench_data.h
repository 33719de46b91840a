// For benchmarks: what of GLM-5.2 and of micro-glm gives an operation its shape.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/rope.h"

namespace assay::kernels {

struct BenchModel {
  const char* name;
  int hidden, n_heads, q_lora, kv_lora, qk_nope, qk_rope, v_head, index_dim, n_experts, top_k,
      vocab;
  double rope_theta;
  int qk_head() const { return qk_nope + qk_rope; }
  int kv_row() const { return kv_lora + qk_rope; }
};
inline constexpr BenchModel kBenchModels[] = {
    {"glm-5.2", 6144, 64, 2048, 512, 192, 64, 256, 128, 256, 8, 154880, 8e6},
    {"micro-glm", 320, 6, 192, 128, 32, 32, 64, 64, 16, 4, 3072, 1e6}};

// A decoded token, a batch of them, a chunk of a prompt.
inline constexpr int kBenchRows[] = {1, 32, 512};

// name/model/rows:n for each of them.
inline void add_for_models(
    const std::string& name,
    const std::function<void(benchmark::State&, const BenchModel&, int)>& run) {
  for (const BenchModel& m : kBenchModels)
    for (const int n_rows : kBenchRows)
      add_cuda_benchmark(name + "/" + m.name + "/rows:" + std::to_string(n_rows),
                         [=](benchmark::State& state) { run(state, m, n_rows); });
}

// cos and sin of n_rows positions from `first`, as an engine uploads them: (n_rows, dim / 2) each.
struct Angles {
  Angles(const BenchModel& m, int first, int n_rows)
      : cosine(area(n_rows, m.qk_rope / 2)), sine(cosine.size()) {
    const RopeTable table(m.rope_theta, m.qk_rope);
    for (int r = 0; r < n_rows; ++r)
      table.angles(first + r, &cosine[area(r, m.qk_rope / 2)], &sine[area(r, m.qk_rope / 2)]);
  }
  std::vector<float> cosine, sine;
};

}  // namespace assay::kernels
