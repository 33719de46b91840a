// y = x Wᵀ over GLM-5.2's experts at decode widths, every tier, two threads (or as many as there
// are), beside dense bf16 products of the same shapes: ours, and oneDNN's where it was built in.
// Weights lie in memory far larger than the last-level cache and are read in turn.
#include "kernels/bench/vq_bench.h"

#include <algorithm>
#include <map>
#include <memory>
#include <span>

#include "base/thread_pool.h"
#include "kernels/aligned_array.h"
#include "kernels/bench/bench_data.h"
#include "kernels/project.h"
#include "kernels/roof.h"
#include "kernels/vq.h"

#ifdef ASSAY_HAVE_DNNL
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace assay::kernels {
namespace {

constexpr std::size_t kWorkingSet = std::size_t{256} << 20;  // bytes of weights
constexpr int kMaxTokens = 32;

// One launch: gate and up of the eight selected experts read the same inputs; every expert's down
// has inputs of its own.
struct Shape {
  const char* name;
  int n_rows, n_cols, n_matrices;
  bool same_inputs;
};
constexpr Shape kShapes[] = {{"gate_up", 2048, 6144, 16, true}, {"down", 6144, 2048, 8, false}};
// A quarter of one expert's gate: its codes stay in the second-level caches.
constexpr Shape kCached = {"cached", 2048, 1536, 1, true};

struct Tier {
  const char* name;
  int dim, n_codes, index_bits;
};
constexpr Tier kTiers[] = {
    {"1", 8, 256, 8}, {"1.5", 8, 4096, 12}, {"2", 4, 256, 8}, {"3", 4, 4096, 12}};

ThreadPool& pool() {
  static ThreadPool threads(0);
  return threads;
}

double read_roof() {
  static const double roof = read_bytes_per_s(pool(), kWorkingSet, 8);
  return roof;
}

// The roof as a benchmark of its own: interleaved with others it meets the same moments of a shared
// machine as they do.
void read_alone(benchmark::State& state) {
  constexpr int kPasses = 2;
  for (auto _ : state)
    state.SetIterationTime(static_cast<double>(kWorkingSet) * kPasses /
                           read_bytes_per_s(pool(), kWorkingSet, kPasses));
  state.counters["B/s"] = benchmark::Counter(static_cast<double>(kWorkingSet) * kPasses,
                                             benchmark::Counter::kIsIterationInvariantRate);
}

// Inputs and outputs of one launch.
struct Rows {
  explicit Rows(const Shape& s)
      : x(bench_floats(static_cast<std::size_t>(s.n_matrices) * kMaxTokens * s.n_cols, 1)),
        y(static_cast<std::size_t>(s.n_matrices) * kMaxTokens * s.n_rows) {
    for (int m = 0; m < s.n_matrices; ++m)
      for (int t = 0; t < kMaxTokens; ++t) {
        const auto row = static_cast<std::size_t>(s.same_inputs ? 0 : m) * kMaxTokens + t;
        xs.push_back(&x[row * s.n_cols]);
        ys.push_back(&y[(static_cast<std::size_t>(m) * kMaxTokens + t) * s.n_rows]);
      }
  }
  const float* const* inputs(int m) const { return &xs[static_cast<std::size_t>(m) * kMaxTokens]; }
  float* const* outputs(int m) const { return &ys[static_cast<std::size_t>(m) * kMaxTokens]; }
  std::vector<float> x, y;
  std::vector<const float*> xs;
  std::vector<float*> ys;
};

// Random codes: every byte is an index of its own or a part of one.
struct VqSet {
  VqSet(const Shape& s, const Tier& t)
      : book(bench_floats(static_cast<std::size_t>(t.dim) * t.n_codes, 2)) {
    w.n_rows = s.n_rows, w.n_cols = s.n_cols, w.dim = t.dim, w.n_codes = t.n_codes;
    w.index_bits = t.index_bits, w.n_books = 1, w.group = 128;
    codes.resize(std::size_t{4} * w.row_words() * s.n_rows);
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::byte>(uniform_at(3, 0, i) * 256);
    scales.resize(std::size_t{2} * s.n_rows * w.n_groups());
    for (std::size_t i = 0; i < scales.size(); i += 2) {  // near 1 in binary16
      scales[i] = static_cast<std::byte>(uniform_at(4, 0, i) * 256);
      scales[i + 1] = std::byte{0x3C};
    }
    w.codes = codes.data(), w.scales = scales.data(), w.codebook = book.data();
    std::size_t bytes = 0;
    while (bytes < kWorkingSet || packed.size() % static_cast<std::size_t>(s.n_matrices) != 0) {
      packed.push_back(PackedVq::pack(arena, w));
      bytes += packed.back().bytes();
    }
  }
  VqMatrix w;
  std::vector<float> book;
  std::vector<std::byte> codes, scales;
  WeightArena arena;
  std::vector<PackedVq> packed;
};

VqSet& vq_set(const Shape& s, const Tier& t) {
  static std::map<std::pair<std::string, std::string>, std::unique_ptr<VqSet>> sets;
  auto& set = sets[{s.name, t.name}];
  if (!set) set = std::make_unique<VqSet>(s, t);
  return *set;
}

struct DenseSet {
  explicit DenseSet(const Shape& s) : raw(static_cast<std::size_t>(s.n_rows) * s.n_cols) {
    for (std::size_t i = 0; i < raw.size(); ++i)  // every bit pattern is a small number
      raw[i] = static_cast<std::uint16_t>(
          (static_cast<std::uint32_t>(i * 2654435761u) >> 16 & 0x807Fu) | 0x3D00u);
    std::size_t bytes = 0;
    while (bytes < kWorkingSet || packed.size() % static_cast<std::size_t>(s.n_matrices) != 0) {
      packed.push_back(
          PackedMatrix::pack(arena, {raw.data(), WeightType::kBf16, s.n_rows, s.n_cols}));
      bytes += packed.back().bytes();
    }
  }
  std::vector<std::uint16_t> raw;
  WeightArena arena;
  std::vector<PackedMatrix> packed;
};

DenseSet& dense_set(const Shape& s) {
  static std::map<std::string, std::unique_ptr<DenseSet>> sets;
  auto& set = sets[s.name];
  if (!set) set = std::make_unique<DenseSet>(s);
  return *set;
}

// Weights of a launch per second, its bytes per second, and their share of the read roof.
void report(benchmark::State& state, const Shape& s, int n_tokens, std::size_t bytes) {
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

// Shares the blocks out in some parts a thread: one, as the engine does with codes, whose tables
// cost as much for a part as for all; two with dense weights, so that uneven cores even out.
template <class Work>
void share_out(int n_blocks, int step, int n_parts_each, const Work& work) {
  const int n_parts = n_parts_each * pool().n_threads();
  pool().parallel_for(n_parts, [&](int part) {
    const auto edge = [&](int p) {
      return p == n_parts
                 ? n_blocks
                 : static_cast<int>(static_cast<long>(n_blocks) * p / n_parts) / step * step;
    };
    work(edge(part), edge(part + 1));
  });
}

bool is_right(const std::vector<float>& expected, const float* got, int n_cols) {
  return relative_error(expected, {got, got + expected.size()}) < n_cols * 0x1p-21;
}

// in_cache: the first matrices of the set every time, to tell what the instructions allow.
void vq_on(benchmark::State& state, CpuTarget target, const Shape& s, const Tier& t,
           bool in_cache) {
  const int n_tokens = static_cast<int>(state.range(0));
  VqSet& set = vq_set(s, t);
  Rows rows(s);
  std::size_t next = 0;
  const auto run = [&] {
    const std::span<const PackedVq> w =
        std::span(set.packed).subspan(next, static_cast<std::size_t>(s.n_matrices));
    next = in_cache ? 0 : (next + w.size()) % set.packed.size();
    share_out(w[0].n_blocks(), 1, 1, [&](int first, int last) {
      thread_local AlignedArray<float> scratch;
      scratch.reserve(vq_scratch());
      std::vector<VqProduct> products;
      for (int m = 0; m < s.n_matrices; ++m)
        products.push_back({&w[static_cast<std::size_t>(m)], rows.outputs(m), first, last});
      const std::size_t n_together = s.same_inputs ? products.size() : 1;
      for (std::size_t m = 0; m < products.size(); m += n_together)
        vq_project_cpu(target, {.products = std::span(products).subspan(m, n_together),
                                .x = rows.inputs(static_cast<int>(m)),
                                .n_tokens = n_tokens,
                                .accumulate = false,
                                .scratch = scratch.data()});
    });
  };
  run();
  VqMatrix some = set.w;
  some.n_rows = 64;
  std::vector<float> expected(64);
  project_reference(some, rows.inputs(0)[0], 1, s.n_cols, expected.data(), 64, false);
  if (!is_right(expected, rows.outputs(0)[0], s.n_cols)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) run();
  report(state, s, n_tokens, set.packed[0].bytes() * static_cast<std::size_t>(s.n_matrices));
}

void dense_on(benchmark::State& state, CpuTarget target, const Shape& s) {
  const int n_tokens = static_cast<int>(state.range(0));
  DenseSet& set = dense_set(s);
  Rows rows(s);
  std::size_t next = 0;
  const auto run = [&] {
    share_out(set.packed[0].n_blocks(), PackedMatrix::kGroupBlocks, 2, [&](int first, int last) {
      for (int m = 0; m < s.n_matrices; ++m)
        project_cpu(target, {.w = &set.packed[next + static_cast<std::size_t>(m)],
                             .x = rows.inputs(m),
                             .y = rows.outputs(m),
                             .n_tokens = n_tokens,
                             .first_block = first,
                             .last_block = last,
                             .accumulate = false});
    });
    next = (next + static_cast<std::size_t>(s.n_matrices)) % set.packed.size();
  };
  run();
  std::vector<float> expected(64);
  project_reference({set.raw.data(), WeightType::kBf16, 64, s.n_cols}, rows.inputs(0)[0], 1,
                    s.n_cols, expected.data(), 64, false);
  if (!is_right(expected, rows.outputs(0)[0], s.n_cols)) {
    state.SkipWithError("wrong result");
    return;
  }
  for (auto _ : state) run();
  report(state, s, n_tokens, set.packed[0].bytes() * static_cast<std::size_t>(s.n_matrices));
}

#ifdef ASSAY_HAVE_DNNL
// oneDNN reads activations in bf16 too, in whatever layout it likes best for the weights; its
// threads are OpenMP's (OMP_NUM_THREADS).
void dnnl_on(benchmark::State& state, const Shape& s) {
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
  const Rows rows(s);
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
  std::vector<float> expected(64);
  project_reference({source.raw.data(), WeightType::kBf16, 64, s.n_cols}, rows.inputs(0)[0], 1,
                    s.n_cols, expected.data(), 64, false);
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
    for (const Tier& t : kTiers)
      add("vq/" + std::string(cpu_target_name(target)) + "/cached/bits:" + t.name,
          [=](benchmark::State& state) { vq_on(state, target, kCached, t, true); });
  for (const Shape& s : kShapes) {
    for (const CpuTarget target : usable_cpu_targets()) {
      const std::string on = std::string(cpu_target_name(target)) + "/" + s.name;
      add("dense_bf16/" + on, [=](benchmark::State& state) { dense_on(state, target, s); });
      for (const Tier& t : kTiers)
        add("vq/" + on + "/bits:" + t.name,
            [=](benchmark::State& state) { vq_on(state, target, s, t, false); });
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
  for (const Shape& s : kShapes)
    for (const CpuTarget target : usable_cpu_targets())
      for (const Tier& t : kTiers)
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
