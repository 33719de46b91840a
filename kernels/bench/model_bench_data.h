// For benchmarks: what of GLM-5.2 and of micro-glm gives an operation its shape.
#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/layer_cuda.h"
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

// Clocks a T of that model and so many rows, kept.
template <class T>
void time_rows(benchmark::State& state, const BenchModel& m, int n_rows) {
  time_if_right(state, kept<T>(std::string(m.name) + "/" + std::to_string(n_rows),
                               [&] { return std::make_unique<T>(m, n_rows); }));
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

// Copies of them for as many launches, and what they make of a row.
struct RopeCopies {
  RopeCopies(const BenchModel& m, int first, int n_rows, int n_copies)
      : dim(m.qk_rope),
        angles(m, first, n_rows),
        cosine(angles.cosine, n_copies),
        sine(angles.sine, n_copies) {}
  RopeCuda at(int i) const { return {cosine.at(i), sine.at(i), dim, true}; }
  void rotate(int r, float* values) const {
    rope_reference(&angles.cosine[area(r, dim / 2)], &angles.sine[area(r, dim / 2)], dim, true,
                   values);
  }
  int dim;
  Angles angles;
  Copies<float> cosine, sine;
};

// A cache for each launch, in which row r is to be written at position n_rows - 1 - r: not in the
// order of rows.
template <class T>
struct AppendCopies {
  AppendCopies(const std::vector<T>& cache, int rows, int n_copies)
      : n_rows(rows), caches(cache, n_copies) {
    std::vector<int> positions;
    std::vector<T*> of_rows;
    for (int r = 0; r < rows; ++r) positions.push_back(rows - 1 - r);
    for (int i = 0; i < n_copies; ++i) of_rows.insert(of_rows.end(), area(rows, 1), caches.at(i));
    position = DeviceArray<int>(positions);
    cache_of_row = DeviceArray<T*>(of_rows);
  }
  T* const* at(int i) const { return cache_of_row.data() + area(i, n_rows); }
  int n_rows;
  Copies<T> caches;
  DeviceArray<int> position;
  DeviceArray<T*> cache_of_row;
};

}  // namespace assay::kernels
