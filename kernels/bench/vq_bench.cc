// y = x Wᵀ over GLM-5.2's experts at decode widths, every tier, two threads (or as many as there
// are), beside dense bf16 products of the same shapes: ours, and oneDNN's where it was built in.
// Weights lie in memory far larger than the last-level cache and are read in turn.
#include "kernels/bench/vq_bench.h"

#include <algorithm>
#include <map>
#include <memory>

#include "kernels/bench/vq_bench_data.h"
#include "kernels/roof.h"

#ifdef ASSAY_HAVE_DNNL
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace assay::kernels {
namespace {

// A quarter of one expert's gate: its codes stay in the second-level caches.
constexpr VqBenchShape kCached = {"cached", 2048, 1536, 1, true};

double read_roof() {
  static const double roof = read_bytes_per_s(vq_pool(), vq_working_set(), 8);
  return roof;
}

// The roof as a benchmark of its own: interleaved with others it meets the same moments of a shared
// machine as they do.
void read_alone(benchmark::State& state) {
  constexpr int kPasses = 2;
  for (auto _ : state)
    state.SetIterationTime(static_cast<double>(vq_working_set()) * kPasses /
                           read_bytes_per_s(vq_pool(), vq_working_set(), kPasses));
  state.counters["B/s"] = benchmark::Counter(static_cast<double>(vq_working_set()) * kPasses,
                                             benchmark::Counter::kIsIterationInvariantRate);
}

VqSet& vq_set(const VqBenchShape& s, const VqTier& t) {
  static std::map<std::pair<std::string, std::string>, std::unique_ptr<VqSet>> sets;
  auto& set = sets[{s.name, t.name}];
  if (!set) set = std::make_unique<VqSet>(s, t, s.n_matrices == 1 ? 1 : vq_working_set());
  return *set;
}

DenseSet& dense_set(const VqBenchShape& s) {
  static std::map<std::string, std::unique_ptr<DenseSet>> sets;
  auto& set = sets[s.name];
  if (!set) set = std::make_unique<DenseSet>(s, vq_working_set());
  return *set;
}

// Weights of a launch per second, its bytes per second, and their share of the read roof.
void report(benchmark::State& state, const VqBenchShape& s, int n_tokens, std::size_t bytes) {
  const double weights = static_cast<double>(s.n_rows) * s.n_cols * s.n_matrices;
  state.counters["weights/s"] =
      benchmark::Counter(weights, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["FMA/s"] =
      benchmark::Counter(weights * n_tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["B/s"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_read"] = benchmark::Counter(static_cast<double>(bytes) / read_roof(),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

// The matrices of a set in turn; a set of one launch stays in the cache.
void vq_on(benchmark::State& state, CpuTarget target, const VqBenchShape& s, const VqTier& t) {
  const int n_tokens = static_cast<int>(state.range(0));
  const VqSet& set = vq_set(s, t);
  VqRows rows(s);
  std::size_t next = 0;
  const auto run = [&] {
    launch_vq(target, VqFetch::kBest, s, take_turn(set.packed, s.n_matrices, next), rows, n_tokens);
  };
  run();
  if (!is_right(set, rows)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) run();
  report(state, s, n_tokens, set.packed[0].bytes() * static_cast<std::size_t>(s.n_matrices));
}

void dense_on(benchmark::State& state, CpuTarget target, const VqBenchShape& s) {
  const int n_tokens = static_cast<int>(state.range(0));
  const DenseSet& set = dense_set(s);
  VqRows rows(s);
  std::size_t next = 0;
  const auto run = [&] {
    launch_dense(target, take_turn(set.packed, s.n_matrices, next), rows, n_tokens);
  };
  run();
  if (!rows_are_right(expected_rows(set, rows, s.n_cols), rows.outputs(0)[0], s.n_cols)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) run();
  report(state, s, n_tokens, set.packed[0].bytes() * static_cast<std::size_t>(s.n_matrices));
}

#ifdef ASSAY_HAVE_DNNL
// oneDNN reads activations in bf16 too, in whatever layout it likes best for the weights; its
// threads are OpenMP's (OMP_NUM_THREADS).
void dnnl_on(benchmark::State& state, const VqBenchShape& s) {
  using dnnl::memory;
  const int n_tokens = static_cast<int>(state.range(0));
  const DenseSet& source = dense_set(s);
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x_desc({n_tokens, s.n_cols}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc any({s.n_cols, s.n_rows}, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc y_desc({n_tokens, s.n_rows}, memory::data_type::f32, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc plan({x_desc, any, y_desc}, engine);
  const dnnl::matmul product(plan);
  memory plain({{s.n_cols, s.n_rows}, memory::data_type::bf16, memory::format_tag::ba}, engine,
               const_cast<std::uint16_t*>(source.raw.data()));
  std::vector<memory> weights;
  while (weights.size() < source.packed.size()) {
    weights.emplace_back(plan.weights_desc(), engine);
    dnnl::reorder(plain, weights.back()).execute(stream, plain, weights.back());
  }
  stream.wait();
  memory x(x_desc, engine), y(y_desc, engine);
  const VqRows rows(s);
  memory x_f32({{n_tokens, s.n_cols}, memory::data_type::f32, memory::format_tag::ab}, engine,
               const_cast<float*>(rows.inputs(0)[0]));
  dnnl::reorder(x_f32, x).execute(stream, x_f32, x);
  std::size_t next = 0;
  const auto run = [&] {
    for (int m = 0; m < s.n_matrices; ++m)
      product.execute(stream, {{DNNL_ARG_SRC, x},
                               {DNNL_ARG_WEIGHTS, weights[next + static_cast<std::size_t>(m)]},
                               {DNNL_ARG_DST, y}});
    stream.wait();
    next = (next + static_cast<std::size_t>(s.n_matrices)) % weights.size();
  };
  run();
  const std::vector<float> expected = expected_rows(source, rows, s.n_cols);
  const auto* got = static_cast<const float*>(y.get_data_handle());
  if (relative_error(expected, {got, got + 64}) > 0.02) {  // its inputs are rounded to 8 bits
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) run();
  report(state, s, n_tokens, source.raw.size() * 2 * static_cast<std::size_t>(s.n_matrices));
}
#endif

}  // namespace

void register_vq_benchmarks() {
  benchmark::RegisterBenchmark("read", read_alone)->UseManualTime()->Unit(benchmark::kMicrosecond);
  const auto add = [](const std::string& name, auto function) {
    benchmark::RegisterBenchmark(name.c_str(), function)
        ->ArgName("rows")
        ->Arg(1)
        ->Arg(2)
        ->Arg(4)
        ->Arg(8)
        ->Arg(32)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  for (const CpuTarget target : usable_cpu_targets())
    for (const VqTier& t : kVqTiers)
      add("vq/" + std::string(cpu_target_name(target)) + "/cached/bits:" + t.name,
          [=](benchmark::State& state) { vq_on(state, target, kCached, t); });
  for (const VqBenchShape& s : kVqShapes) {
    for (const CpuTarget target : usable_cpu_targets()) {
      const std::string on = std::string(cpu_target_name(target)) + "/" + s.name;
      add("dense_bf16/" + on, [=](benchmark::State& state) { dense_on(state, target, s); });
      for (const VqTier& t : kVqTiers)
        add("vq/" + on + "/bits:" + t.name,
            [=](benchmark::State& state) { vq_on(state, target, s, t); });
    }
#ifdef ASSAY_HAVE_DNNL
    add(std::string("dense_bf16_onednn/best/") + s.name,
        [=](benchmark::State& state) { dnnl_on(state, s); });
#endif
  }
}

// "vq/avx512/gate_up/bits:1/rows:1/real_time" beside the better of
// "dense_bf16/avx512/gate_up/rows:1…" and oneDNN's.
void print_vq_ratios(const std::map<std::string, double>& weights_per_s) {
  const auto rate = [&](const std::string& name) {
    const auto it = weights_per_s.find(name);
    return it == weights_per_s.end() ? 0.0 : it->second;
  };
  bool headed = false;
  for (const VqBenchShape& s : kVqShapes)
    for (const CpuTarget target : usable_cpu_targets())
      for (const VqTier& t : kVqTiers)
        for (const int rows : {1, 2, 4, 8, 32}) {
          const std::string on = std::string(cpu_target_name(target)) + "/" + s.name;
          const std::string end = "/rows:" + std::to_string(rows) + "/real_time";
          const double vq = rate("vq/" + on + "/bits:" + t.name + end),
                       ours = rate("dense_bf16/" + on + end),
                       dnnl = rate(std::string("dense_bf16_onednn/best/") + s.name + end);
          if (vq == 0 || std::max(ours, dnnl) == 0) continue;
          if (!headed)
            std::printf(
                "\nweights/s of VQ over those of dense bf16 (medians where repeated)\n%-8s %-8s "
                "%5s %5s %12s %12s %12s\n",
                "target", "shape", "bits", "rows", "over ours", "over oneDNN", "over better");
          headed = true;
          std::printf("%-8s %-8s %5s %5d %12.2f %12s %12.2f\n",
                      std::string(cpu_target_name(target)).c_str(), s.name, t.name, rows, vq / ours,
                      dnnl > 0 ? std::to_string(vq / dnnl).substr(0, 4).c_str() : "–",
                      vq / std::max(ours, dnnl));
        }
}

}  // namespace assay::kernels
