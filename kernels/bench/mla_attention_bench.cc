// One query's attention over the latent cache, one thread: micro-glm's and GLM-5.2's shapes, dense
// contexts and the sparse selection.
#include "kernels/bench/bench_data.h"
#include "kernels/mla_attention.h"

namespace assay::kernels {
namespace {

void attention_on(benchmark::State& state, CpuTarget target) {
  const int n_heads = static_cast<int>(state.range(0)), kv_lora = static_cast<int>(state.range(1)),
            rope = static_cast<int>(state.range(2)), n_keys = static_cast<int>(state.range(3));
  const int row = kv_lora + rope;
  const auto q = bench_floats(static_cast<std::size_t>(n_heads) * row, 1);
  const auto kv = bench_floats(static_cast<std::size_t>(n_keys) * row, 2);
  std::vector<float> out(static_cast<std::size_t>(n_heads) * kv_lora), expected = out;
  MlaAttentionArgs args{.q = q.data(),
                        .kv = kv.data(),
                        .keys = nullptr,
                        .n_keys = n_keys,
                        .n_heads = n_heads,
                        .kv_lora = kv_lora,
                        .rope = rope,
                        .scale = 0.0625f,
                        .out = expected.data()};
  mla_attention_reference(args);
  args.out = out.data();
  mla_attention_cpu(target, args);
  if (!(relative_error(expected, out) < 1e-4)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) {
    mla_attention_cpu(target, args);
    benchmark::DoNotOptimize(out.data());
  }
  const double fma = static_cast<double>(n_heads) * n_keys * (row + kv_lora);
  state.counters["FMA/s"] = benchmark::Counter(fma, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_mla_attention_benchmarks() {
  for (const CpuTarget target : usable_cpu_targets()) {
    const std::string name = "mla_attention/" + std::string(cpu_target_name(target));
    auto* bench = benchmark::RegisterBenchmark(
        name.c_str(), [target](benchmark::State& s) { attention_on(s, target); });
    bench->ArgNames({"heads", "kv_lora", "rope", "keys"})->Unit(benchmark::kMicrosecond);
    for (const int keys : {128, 512, 4096}) bench->Args({6, 128, 32, keys});
    for (const int keys : {128, 2048}) bench->Args({64, 512, 64, keys});
  }
}

}  // namespace assay::kernels
