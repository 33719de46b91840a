// The routed experts of a prompt's rows on a GPU's tensor cores: GLM-5.2's and micro-glm's, in
// every tier. Each result is checked first.
#include <map>
#include <memory>
#include <set>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/gemm_bench_data.cuh"
#include "kernels/bench/moe_bench_data.h"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/moe_cuda.h"

namespace assay::kernels {
namespace {

// All experts of a layer in device memory.
struct Experts {
  Experts(const MoeShape& s, const VqTier& t)
      : book(bench_floats(static_cast<std::size_t>(t.dim) * static_cast<std::size_t>(t.n_codes),
                          2)) {
    for (float& v : book) v = static_cast<float>(__half(v));
    const BenchVq up(t, book, s.width, s.hidden, s.group),
        down(t, book, s.hidden, s.width, s.group);
    std::vector<DeviceMatrix> matrices;
    for (int e = 0; e < s.n_experts; ++e)
      for (const BenchVq* m : {&up, &up, &down}) matrices.push_back(memory.add(m->w));
    on_device = memory.add_array(matrices);
    bytes = s.n_experts * (2 * up.bytes() + down.bytes());
  }
  std::vector<float> book;
  DeviceWeights memory;
  const DeviceMatrix* on_device;
  double bytes;
};

// Every row chose top_k of them.
void experts_on(benchmark::State& state, const MoeShape& s, const VqTier& t, int n_tokens) {
  static std::map<std::pair<std::string, std::string>, std::unique_ptr<Experts>> all;
  auto& experts = all[{s.name, t.name}];
  if (!experts) experts = std::make_unique<Experts>(s, t);
  Random random(3);
  std::vector<int> chosen;
  for (int i = 0; i < n_tokens; ++i) {
    std::set<int> of_token;
    while (static_cast<int>(of_token.size()) < s.top_k) of_token.insert(random.below(s.n_experts));
    chosen.insert(chosen.end(), of_token.begin(), of_token.end());
  }
  const DeviceArray<int> expert(chosen), order(chosen.size()),
      first(static_cast<std::size_t>(s.n_experts + 1));
  const DeviceArray<float> weight(std::vector<float>(chosen.size(), 0.25f)),
      x(bench_floats(area(n_tokens, s.hidden), 5)),
      shared(bench_floats(area(n_tokens, s.hidden), 6)),
      y(chosen.size() * static_cast<std::size_t>(s.hidden));
  const DeviceArray<Bf16> rounded(area(n_tokens, bf16_stride(s.hidden))),
      h(chosen.size() * static_cast<std::size_t>(bf16_stride(s.width)));
  to_bf16_cuda(x.data(), s.hidden, n_tokens, s.hidden, rounded.data(), nullptr);
  synchronise(nullptr);
  const auto run = [&](float* residual, CudaStream stream) {
    moe_gemm_cuda({.experts = experts->on_device,
                   .n_experts = s.n_experts,
                   .all_copied = false,
                   .expert = expert.data(),
                   .weight = weight.data(),
                   .n_tokens = n_tokens,
                   .top_k = s.top_k,
                   .hidden = s.hidden,
                   .width = s.width,
                   .x = rounded.data(),
                   .order = order.data(),
                   .first = first.data(),
                   .h = h.data(),
                   .y = y.data(),
                   .shared = shared.data(),
                   .residual = residual},
                  stream);
  };
  const DeviceArray<float> residual(std::vector<float>(area(n_tokens, s.hidden), 0.0f));
  run(residual.data(), nullptr);
  // The first rows in float32: three operands of each product are rounded to 2^-8 of themselves, of
  // either sign, so 2^-6 of the largest result is never reached by a right one.
  constexpr int kChecked = 4;
  const MoePlan rows_only;
  const DeviceArray<float> expected(std::vector<float>(area(kChecked, s.hidden), 0.0f)),
      scratch(static_cast<std::size_t>(kChecked) * static_cast<std::size_t>(s.top_k * s.width));
  moe_cuda({.plan = &rows_only,
            .experts = experts->on_device,
            .expert = expert.data(),
            .weight = weight.data(),
            .n_tokens = kChecked,
            .top_k = s.top_k,
            .hidden = s.hidden,
            .width = s.width,
            .x = x.data(),
            .h = scratch.data(),
            .shared = shared.data(),
            .residual = expected.data()},
           nullptr);
  if (!(relative_error(expected.host(), residual.host(area(kChecked, s.hidden), nullptr)) <
        0x1p-6)) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, 1, experts->bytes, 3.0 * s.hidden * s.width * n_tokens * s.top_k,
                [&](int, CudaStream stream) { run(residual.data(), stream); });
  add_flops(state, 6.0 * s.hidden * s.width * n_tokens * s.top_k);
}

}  // namespace

void register_moe_gemm_cuda_benchmarks() {
  for (const int n_tokens : {32, 128, 512, 2048})
    for (const MoeShape& s : {kGlmMoe, kMicroMoe})
      for (const VqTier& t : kVqTiers)
        add_cuda_benchmark("moe_gemm_cuda/" + std::string(s.name) +
                               "/rows:" + std::to_string(n_tokens) + "/bits:" + t.name,
                           [=](benchmark::State& state) { experts_on(state, s, t, n_tokens); });
}

}  // namespace assay::kernels
