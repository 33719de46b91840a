// From logits to tokens on a GPU: GLM-5.2's vocabulary and micro-glm's, with what the harness asks
// of a step. The logits are in the second-level cache, as they are just after their product. B/s is
// of the logits, read once.
#include <cmath>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#include "kernels/sample_cuda.h"

namespace assay::kernels {
namespace {

struct Asked {
  const char* name;
  SamplingParams params;
  int n_top;
};
constexpr Asked kAsked[] = {{"greedy_top20", {}, 20},
                            {"sampled_p0.95", {.temperature = 1, .top_p = 0.95}, 4}};

// The token and the likeliest ones; sums of exponentials round differently (sample_cuda.h).
bool is_same(const Sampled& got, const Sampled& expected) {
  if (got.id != expected.id || got.top.size() != expected.top.size()) return false;
  for (std::size_t i = 0; i < got.top.size(); ++i)
    if (got.top[i].first != expected.top[i].first ||
        !(std::abs(got.top[i].second - expected.top[i].second) < 1e-5f))
      return false;
  return std::abs(got.logprob - expected.logprob) < 1e-5f;
}

void sample_on(benchmark::State& state, int vocab, int n_rows, const Asked& asked) {
  const auto n = static_cast<std::size_t>(vocab);
  std::vector<float> row = bench_floats(n, 3), all;
  for (float& v : row) v *= 8;
  for (int r = 0; r < n_rows; ++r) all.insert(all.end(), row.begin(), row.end());
  const std::vector<int> watched = {1, 2, 3};
  std::vector<SampleRequest> requests;
  for (int r = 0; r < n_rows; ++r)
    requests.push_back({.params = asked.params,
                        .key = {.seed = 1, .position = static_cast<std::uint64_t>(r)},
                        .n_top = asked.n_top,
                        .watched = watched});
  const DeviceArray<float> logits(all);
  DeviceBudget budget(DeviceBudget::Mode::kAllocate);
  CudaSampler sampler(vocab, n_rows, budget);
  sampler.prepare(requests, {}, nullptr);
  sampler.launch(logits.data(), nullptr);
  synchronise(nullptr);
  std::vector<Sampled> out(requests.size());
  sampler.collect(out);
  for (std::size_t r = 0; r < out.size(); ++r)
    if (!is_same(out[r], sample(row, requests[r]))) {
      state.SkipWithError("wrong result");
      return;
    }
  time_launches(state, 16, static_cast<double>(all.size() * sizeof(float)), 0,
                [&](int, CudaStream stream) { sampler.launch(logits.data(), stream); });
}

}  // namespace

void register_sample_cuda_benchmarks() {
  for (const int vocab : {154880, 3072})
    for (const int n_rows : {1, 8})
      for (const Asked& asked : kAsked)
        add_cuda_benchmark(
            "sample_cuda/vocab:" + std::to_string(vocab) + "/rows:" + std::to_string(n_rows) + "/" +
                asked.name,
            [=](benchmark::State& state) { sample_on(state, vocab, n_rows, asked); });
}

}  // namespace assay::kernels
