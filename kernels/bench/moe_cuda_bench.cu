// The routed experts of one GLM-5.2 layer on a GPU: eight experts of every tier and design, whose
// weights no cache holds, and micro-glm's. The result is checked against the row kernel first,
// which tests hold to the reference.
#include <cuda_fp16.h>

#include <map>
#include <memory>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/moe_bench_data.h"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/moe_cuda.h"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

// Sets of top_k experts in device memory, as many as defeat the cache.
struct Experts {
  Experts(const MoeShape& s, const VqTier& t)
      : shape(s),
        book(bench_floats(static_cast<std::size_t>(t.dim) * static_cast<std::size_t>(t.n_codes),
                          2)) {
    for (float& v : book) v = static_cast<float>(__half(v));
    const BenchVq up(t, book, s.width, s.hidden, s.group),
        down(t, book, s.hidden, s.width, s.group);
    set_bytes = s.top_k * (2 * up.bytes() + down.bytes());
    n_sets = static_cast<int>(static_cast<double>(kDeviceWorkingSet) / set_bytes) + 1;
    if (n_sets > 64) n_sets = 64;
    for (int e = 0; e < n_sets * s.top_k; ++e) {
      matrices.push_back(memory.add(up.w));
      matrices.push_back(memory.add(up.w));
      matrices.push_back(memory.add(down.w));
    }
    on_device = memory.add_array(matrices);
    std::vector<int> ids;
    for (int e = 0; e < n_sets * s.top_k; ++e) ids.push_back(e);
    expert = memory.add_array(ids);
    weight = memory.add(std::vector<float>(static_cast<std::size_t>(s.top_k), 0.25f));
    const auto n = static_cast<std::size_t>(s.hidden);
    x = memory.add(bench_floats(n, 5)), shared = memory.add(bench_floats(n, 6));
  }
  MoeCudaArgs args(const MoePlan& plan, int set, float* h, float* parts, float* residual) const {
    return {.plan = &plan,
            .experts = on_device,
            .expert = expert + set * shape.top_k,
            .weight = weight,
            .n_tokens = 1,
            .top_k = shape.top_k,
            .hidden = shape.hidden,
            .width = shape.width,
            .x = x,
            .h = h,
            .parts = parts,
            .parts_tokens = 1,
            .shared = shared,
            .residual = residual};
  }
  MoeShape shape;
  std::vector<float> book;
  DeviceWeights memory;
  std::vector<DeviceMatrix> matrices;
  const DeviceMatrix* on_device;
  const int* expert;
  const float *weight, *x, *shared;
  int n_sets;
  double set_bytes;
};

const Experts& experts_of(const MoeShape& s, const VqTier& t) {
  static std::map<std::pair<std::string, std::string>, std::unique_ptr<Experts>> all;
  auto& e = all[{s.name, t.name}];
  if (!e) e = std::make_unique<Experts>(s, t);
  return *e;
}

void moe_on(benchmark::State& state, const MoeShape& s, const VqTier& t, const MoePlan& plan) {
  const Experts& e = experts_of(s, t);
  const auto hidden = static_cast<std::size_t>(s.hidden);
  const DeviceArray<float> h(static_cast<std::size_t>(s.top_k) * static_cast<std::size_t>(s.width)),
      parts(plan.parts_per_token(s.top_k, s.hidden, s.width));
  const auto run = [&](const MoePlan& p) {
    const DeviceArray<float> residual(std::vector<float>(hidden, 0.0f));
    moe_cuda(e.args(p, 0, h.data(), parts.data(), residual.data()), nullptr);
    return residual.host();
  };
  if (relative_error(run({}), run(plan)) > s.hidden * 0x1p-22) {
    state.SkipWithError("wrong result");
    return;
  }
  const DeviceArray<float> residual(std::vector<float>(hidden, 0.0f));
  const double weights = 3.0 * s.hidden * s.width * s.top_k;
  time_launches(state, e.n_sets, e.set_bytes, weights, [&](int i, CudaStream stream) {
    moe_cuda(e.args(plan, i, h.data(), parts.data(), residual.data()), stream);
  });
}

// Everything between the norm and the residual of one sparse layer of GLM-5.2, one row. The router
// chooses among 256 entries that point to the set's eight experts in turn; its bias makes it choose
// one entry of each.
void layer_on(benchmark::State& state, const VqTier& t, const std::string& spine) {
  const MoeShape s = kGlmMoe;
  const Experts& e = experts_of(s, t);
  const MoePlan plan = plan_moe(
      e.matrices, t.index_bits == 8 ? MoeTier::Design::kPartialSums : MoeTier::Design::kCodewords);
  Random random(7);
  const HostMatrix router = dense(WeightType::kBf16, s.n_experts, s.hidden, false, random);
  const auto shared_matrix = [&](int rows, int cols) {
    return spine == "gptq8" ? gptq(8, rows, cols, s.group, false, random)
                            : dense(WeightType::kBf16, rows, cols, false, random);
  };
  const HostMatrix up = shared_matrix(s.width, s.hidden), down = shared_matrix(s.hidden, s.width);
  struct Set {
    DeviceMatrix router, gate, up, down;
    const DeviceMatrix* experts;
  };
  DeviceWeights memory;
  std::vector<Set> sets;
  for (int i = 0; i < e.n_sets; ++i) {
    std::vector<DeviceMatrix> table;
    for (int x = 0; x < s.n_experts; ++x)
      for (int part = 0; part < 3; ++part)
        table.push_back(
            e.matrices[static_cast<std::size_t>((i * s.top_k + x % s.top_k) * 3 + part)]);
    sets.push_back({router.upload(memory), up.upload(memory), up.upload(memory),
                    down.upload(memory), memory.add_array(table)});
  }
  std::vector<float> bias(s.n_experts, 0.0f);
  for (int k = 0; k < s.top_k; ++k) bias[static_cast<std::size_t>(k * (s.top_k + 1))] = 10;
  const auto n = [](int a, int b = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
  };
  const DeviceArray<float> d_bias(bias), logits(n(s.n_experts)), weight(n(s.top_k)), margin(1),
      shared_hidden(n(s.width)), shared(n(s.hidden)), h(n(s.top_k, s.width)),
      parts(plan.parts_per_token(s.top_k, s.hidden, s.width)),
      residual(std::vector<float>(n(s.hidden), 0.0f));
  const DeviceArray<int> expert(n(s.top_k));
  const auto bytes_of = [](const HostMatrix& m) {
    return static_cast<double>(m.values.size() + m.scales.size() + m.zeros.size());
  };
  time_launches(state, e.n_sets, e.set_bytes + bytes_of(router) + 2 * bytes_of(up) + bytes_of(down),
                0, [&](int i, CudaStream stream) {
                  const Set& set = sets[static_cast<std::size_t>(i)];
                  project_cuda(set.router, e.x, s.hidden, 1, logits.data(), s.n_experts, false,
                               stream);
                  route_cuda({.logits = logits.data(),
                              .bias = d_bias.data(),
                              .n_rows = 1,
                              .n_experts = s.n_experts,
                              .top_k = s.top_k,
                              .normalise = true,
                              .scaling = 2.5f,
                              .expert = expert.data(),
                              .weight = weight.data(),
                              .margin = margin.data()},
                             stream);
                  swiglu_cuda(set.gate, set.up, e.x, s.hidden, 1, shared_hidden.data(), stream);
                  project_cuda(set.down, shared_hidden.data(), s.width, 1, shared.data(), s.hidden,
                               false, stream);
                  MoeCudaArgs args = e.args(plan, 0, h.data(), parts.data(), residual.data());
                  args.experts = set.experts;
                  args.expert = expert.data();
                  args.weight = weight.data();
                  args.shared = shared.data();
                  moe_cuda(args, stream);
                });
  std::vector<int> chosen = expert.host();
  for (int k = 0; k < s.top_k; ++k)
    if (chosen[static_cast<std::size_t>(k)] != k * (s.top_k + 1))
      state.SkipWithError("the router chose otherwise");
}

}  // namespace

void register_moe_cuda_benchmarks() {
  for (const VqTier& t : kVqTiers)
    for (const char* spine : {"bf16", "gptq8"})
      benchmark::RegisterBenchmark(
          ("moe_layer_cuda/glm-5.2/bits:" + std::string(t.name) + "/spine:" + spine).c_str(),
          [=](benchmark::State& state) { layer_on(state, t, spine); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
  for (const MoeShape& s : {kGlmMoe, kMicroMoe})
    for (const VqTier& t : kVqTiers)
      for (const char* design : {"rows", "sums", "codewords"}) {
        if (std::string(design) == "sums" && t.index_bits != 8) continue;
        benchmark::RegisterBenchmark(
            ("moe_cuda/" + std::string(s.name) + "/bits:" + t.name + "/" + design).c_str(),
            [=](benchmark::State& state) {
              const std::string d = design;
              const std::vector<DeviceMatrix>& m = experts_of(s, t).matrices;
              moe_on(state, s, t,
                     d == "rows" ? MoePlan{}
                                 : plan_moe(m, d == "sums" ? MoeTier::Design::kPartialSums
                                                           : MoeTier::Design::kCodewords));
            })
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
      }
}

}  // namespace assay::kernels
