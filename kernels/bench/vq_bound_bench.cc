// What bounds y = x Wᵀ from codes at one row: the same kernel with codes from memory and from the
// second-level caches, a dense bf16 product, a plain read of memory, and the core's own clock, each
// for some milliseconds in turn, so that all meet the same moments of a shared machine. Every
// figure is the median over the rounds; so is every ratio, which is formed within a round.
//   GHz          a chain of dependent additions, one a cycle
//   adds/cycle   independent ones: fewer where somebody else uses the core's other thread
//   codes/cycle_steps    of one thread: the look-ups' instructions on registers and one table
//   codes/cycle_cached   the kernel, codes from the caches
//   codes/cycle          and from memory
//   cached, memory, read, dense       weights/s; read: the bytes of the codes, not computed with
//   of_bound     memory over the smaller one of cached and read
//   over_dense   memory over dense
#include <cstdint>

#include "kernels/bench/core_rates.h"
#include "kernels/bench/vq_bench_data.h"
#include "kernels/roof.h"

namespace assay::kernels {
namespace {

constexpr int kRounds = 40;
constexpr double kPhase = 2e-3;  // seconds, about

// The same products with fewer columns or matrices: as many rows to a table, at most 1.1 MB of
// codes.
struct Subject {
  VqBenchShape from_memory, cached;
};
constexpr Subject kSubjects[] = {
    {kVqShapes[0], {"gate_up", 2048, 256, 8, true}},
    {kVqShapes[1], {"down", 6144, 1024, 1, false}},
};
constexpr VqTier kByteTiers[] = {kVqTiers[0], kVqTiers[2]};

// The mean over the pool's threads.
template <class Rate>
double mean_rate(const Rate& rate) {
  std::vector<double> rates(static_cast<std::size_t>(vq_pool().n_threads()));
  vq_pool().parallel_for(vq_pool().n_threads(),
                         [&](int i) { rates[static_cast<std::size_t>(i)] = rate(); });
  double sum = 0;
  for (const double r : rates) sum += r;
  return sum / static_cast<double>(rates.size());
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// Reads a buffer as large as the sets of weights, some MB at a time.
class Reader {
 public:
  explicit Reader(std::size_t n_bytes)
      : n_words_(n_bytes / 4), words_(static_cast<std::uint32_t*>(arena_.allocate(n_bytes))) {
    std::fill_n(words_, n_words_, 1);
  }
  double bytes_per_s() {
    constexpr std::size_t kWords = std::size_t{8} << 20;
    const int n_threads = vq_pool().n_threads();
    const std::size_t each = kWords / static_cast<std::size_t>(n_threads);
    if (next_ + kWords > n_words_) next_ = 0;
    const double s = seconds_of([&] {
      vq_pool().parallel_for(n_threads, [&](int i) {
        const std::uint32_t* part = words_ + next_ + each * static_cast<std::size_t>(i);
        benchmark::DoNotOptimize(read_words(part, each));
      });
    });
    next_ += kWords;
    return 4.0 * static_cast<double>(each) * n_threads / s;
  }

 private:
  WeightArena arena_;
  std::size_t n_words_, next_ = 0;
  std::uint32_t* words_;
};

double weights_of(const VqBenchShape& s) {
  return static_cast<double>(s.n_rows) * s.n_cols * s.n_matrices;
}

struct Round {
  double hz, adds, steps;              // steps: codes a cycle
  double cached, memory, read, dense;  // weights/s
};

class Bench {
 public:
  Bench(CpuTarget target, VqFetch fetch, const Subject& subject, const VqTier& tier)
      : target_(target),
        fetch_(fetch),
        subject_(subject),
        dense_shape_(subject.from_memory),
        far_(subject.from_memory, tier, vq_working_set()),
        near_(subject.cached, tier, 1),
        dense_(subject.from_memory, vq_working_set()),
        reader_(vq_working_set()),
        rows_(subject.from_memory) {
    const PackedVq& w = far_.packed[0];
    weights_per_byte_ =
        static_cast<double>(w.n_rows()) * w.n_cols() / static_cast<double>(w.bytes());
    dense_shape_.n_matrices = 4;  // a few milliseconds
  }

  bool all_right() {
    memory(1);
    const bool far_right = is_right(far_, rows_);
    VqRows near_rows(subject_.cached);
    launch_vq(target_, fetch_, subject_.cached, near_.packed, near_rows, 1);
    const bool near_right = is_right(near_, near_rows);
    dense();
    return far_right && near_right &&
           rows_are_right(expected_rows(dense_, rows_, subject_.from_memory.n_cols),
                          rows_.outputs(0)[0], subject_.from_memory.n_cols);
  }

  Round round() {
    Round r{};
    r.hz = mean_rate(dependent_adds_per_s);
    r.adds = mean_rate(independent_adds_per_s) / r.hz;
    r.steps = mean_rate([&] { return steps_per_s(fetch_); }) / r.hz;
    r.cached = cached();
    r.memory = memory(n_launches_);
    r.read = reader_.bytes_per_s() * weights_per_byte_;
    r.dense = dense();
    n_launches_ =
        std::max(1, static_cast<int>(kPhase * r.memory / weights_of(subject_.from_memory)));
    return r;
  }

 private:
  double cached() {
    const auto launch = [&](int n) {
      launch_vq(target_, fetch_, subject_.cached, near_.packed, rows_, 1, n);
    };
    const double once = seconds_of([&] { launch(2); }) / 2;
    const int n = std::max(1, static_cast<int>(kPhase / once));
    return weights_of(subject_.cached) * n / seconds_of([&] { launch(n); });
  }
  double memory(int n) {
    const VqBenchShape& s = subject_.from_memory;
    const double seconds = seconds_of([&] {
      for (int i = 0; i < n; ++i)
        launch_vq(target_, fetch_, s, take_turn(far_.packed, s.n_matrices, next_), rows_, 1);
    });
    return weights_of(s) * n / seconds;
  }
  double dense() {
    const auto w = take_turn(dense_.packed, dense_shape_.n_matrices, next_dense_);
    return weights_of(dense_shape_) / seconds_of([&] { launch_dense(target_, w, rows_, 1); });
  }

  CpuTarget target_;
  VqFetch fetch_;
  const Subject& subject_;
  VqBenchShape dense_shape_;
  VqSet far_, near_;
  DenseSet dense_;
  Reader reader_;
  VqRows rows_;
  double weights_per_byte_;
  std::size_t next_ = 0, next_dense_ = 0;
  int n_launches_ = 1;
};

void bound_of(benchmark::State& state, CpuTarget target, VqFetch fetch, const Subject& subject,
              const VqTier& tier) {
  Bench bench(target, fetch, subject, tier);
  if (!bench.all_right()) {
    state.SkipWithError("wrong result");
    return;
  }
  std::vector<Round> rounds;
  for (auto _ : state) {
    rounds.push_back(bench.round());
    state.SetIterationTime(weights_of(subject.from_memory) / rounds.back().memory);
  }
  const double threads = vq_pool().n_threads();
  const auto put = [&](const char* name, const auto& of_round) {
    std::vector<double> values;
    for (const Round& r : rounds) values.push_back(of_round(r));
    state.counters[name] = median(values);
  };
  put("GHz", [](const Round& r) { return r.hz * 1e-9; });
  put("adds/cycle", [](const Round& r) { return r.adds; });
  put("codes/cycle_steps", [](const Round& r) { return r.steps; });
  put("codes/cycle_cached", [&](const Round& r) { return r.cached / tier.dim / threads / r.hz; });
  put("codes/cycle", [&](const Round& r) { return r.memory / tier.dim / threads / r.hz; });
  put("cached", [](const Round& r) { return r.cached; });
  put("memory", [](const Round& r) { return r.memory; });
  put("read", [](const Round& r) { return r.read; });
  put("dense", [](const Round& r) { return r.dense; });
  put("of_bound", [](const Round& r) { return r.memory / std::min(r.cached, r.read); });
  put("over_dense", [](const Round& r) { return r.memory / r.dense; });
}

}  // namespace

void register_vq_bound_benchmarks() {
  for (const CpuTarget target : usable_cpu_targets())
    for (const VqFetch fetch : usable_vq_fetches(target))
      for (const Subject& subject : kSubjects)
        for (const VqTier& tier : kByteTiers) {
          const std::string name = "vq_bound/" + std::string(cpu_target_name(target)) + "/" +
                                   std::string(vq_fetch_name(fetch)) + "/" +
                                   subject.from_memory.name + "/bits:" + tier.name;
          benchmark::RegisterBenchmark(name.c_str(),
                                       [=, &subject](benchmark::State& state) {
                                         bound_of(state, target, fetch, subject, tier);
                                       })
              ->UseManualTime()
              ->Iterations(kRounds)
              ->Unit(benchmark::kMicrosecond);
        }
}

}  // namespace assay::kernels
