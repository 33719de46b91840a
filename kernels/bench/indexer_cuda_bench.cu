// The lightning indexer on a GPU (GLM-5.2's and micro-glm's shapes): a decoded row, sixteen of as
// many sequences, and a chunk of a prompt; scores and selection by themselves, and both. Of scores
// B/s is of the keys, once a sequence; of the selection it is of the scores, once, which are in the
// second-level cache, as they are just after they were written.
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#include "kernels/indexer.h"
#include "kernels/indexer_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  const char* name;
  int n_heads, dim, top_k;
};
constexpr Shape kGlm = {"glm-5.2", 32, 128, 2048}, kMicro = {"micro-glm", 4, 64, 512};

struct Part {
  const char* name;
  bool scores, selection;
};
constexpr Part kParts[] = {
    {"scores", true, false}, {"selection", false, true}, {"both", true, true}};

// n_rows at the last positions of a sequence, or one at the last position of each of as many.
struct Load {
  int n_rows, n_sequences, n_keys;
  int rows_of_sequence() const { return n_rows / n_sequences; }
  int position(int row) const { return n_keys - rows_of_sequence() + row % rows_of_sequence(); }
};

std::size_t count(int a, int b, int c = 1) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

struct Data {
  Data(const Shape& shape, const Load& load)
      : q(bench_floats(count(load.n_rows, shape.n_heads, shape.dim), 1)),
        weights(bench_floats(count(load.n_rows, shape.n_heads), 2)),
        keys(bench_floats(count(load.n_keys, shape.dim), 3)) {}
  std::vector<float> q, weights, keys;  // the keys are every sequence's
};

// The scores of a row are the reference's, and what was chosen are the best of them.
bool is_right(const Shape& s, const Load& l, const Data& data, int row,
              const std::vector<float>& scores, const std::vector<int>& chosen) {
  const int n = l.position(row) + 1;
  const auto head = count(row, s.n_heads);
  std::vector<float> weights(data.weights.begin() + static_cast<std::ptrdiff_t>(head),
                             data.weights.begin() + static_cast<std::ptrdiff_t>(head) + s.n_heads);
  for (float& w : weights) w /= std::sqrt(static_cast<float>(s.n_heads));
  std::vector<float> expected(static_cast<std::size_t>(n));
  index_scores_reference({.q = &data.q[head * static_cast<std::size_t>(s.dim)],
                          .weights = weights.data(),
                          .k = data.keys.data(),
                          .n_keys = n,
                          .n_heads = s.n_heads,
                          .head_dim = s.dim,
                          .scores = expected.data()});
  const float* of_row = &scores[count(row, l.n_keys)];
  std::vector<int> best;
  select_top_k(of_row, n, s.top_k, &best, nullptr);
  const int* keys = &chosen[count(row, s.top_k)];
  return relative_error(expected, {of_row, of_row + n}) < 1e-5 &&
         std::equal(best.begin(), best.end(), keys);
}

void index_on(benchmark::State& state, const Shape& s, const Load& l, const Part& part) {
  const Data data(s, l);
  // As many sets of caches as no second-level cache holds, where keys are read once.
  const std::size_t set_bytes = count(l.n_sequences, l.n_keys, s.dim) * sizeof(float);
  const int n_sets =
      l.rows_of_sequence() > 1
          ? 1
          : static_cast<int>(std::min(kDeviceWorkingSet / set_bytes, std::size_t{255})) + 1;
  std::vector<DeviceArray<float>> caches;
  std::vector<DeviceArray<float*>> tables;
  for (int i = 0; i < n_sets; ++i) {
    std::vector<float*> table;
    for (int r = 0; r < l.n_rows; ++r) {
      if (r % l.rows_of_sequence() == 0) caches.emplace_back(data.keys);
      table.push_back(caches.back().data());
    }
    tables.emplace_back(table);
  }
  std::vector<int> position, run;
  for (int r = 0; r < l.n_rows; ++r) {
    if (r % l.rows_of_sequence() % index_rows_of_run(s.n_heads) == 0) run.push_back(r);
    position.push_back(l.position(r));
  }
  const int n_runs = static_cast<int>(run.size());
  run.push_back(l.n_rows);
  const DeviceArray<float> q(data.q), weights(data.weights),
      scores(std::vector<float>(count(l.n_rows, l.n_keys), NAN)),
      margin(static_cast<std::size_t>(l.n_rows));
  const DeviceArray<int> d_position(position), d_run(run), n_chosen(count(l.n_rows, 1)),
      chosen(std::vector<int>(count(l.n_rows, s.top_k), -1));
  const auto launch = [&](int i, const Part& of, CudaStream stream) {
    const IndexCuda args = {.q = q.data(),
                            .weights = weights.data(),
                            .cache = tables[static_cast<std::size_t>(i)].data(),
                            .position = d_position.data(),
                            .run = d_run.data(),
                            .n_runs = n_runs,
                            .n_rows = l.n_rows,
                            .n_heads = s.n_heads,
                            .dim = s.dim,
                            .top_k = s.top_k,
                            .max_keys = l.n_keys,
                            .scores = scores.data(),
                            .keys = chosen.data(),
                            .n_keys = n_chosen.data(),
                            .margin = margin.data()};
    if (of.scores) index_scores_cuda(args, stream);
    if (of.selection) select_top_k_cuda(args, stream);
  };
  launch(0, {"", true, true}, nullptr);
  const std::vector<float> all_scores = scores.host();
  const std::vector<int> all_chosen = chosen.host();
  for (const int row : {0, l.n_rows - 1})
    if (!is_right(s, l, data, row, all_scores, all_chosen)) {
      state.SkipWithError("wrong result");
      return;
    }
  const double n_scores = static_cast<double>(l.n_rows) * l.n_keys;
  const double bytes = part.scores ? static_cast<double>(set_bytes) : 4 * n_scores;
  time_launches(state, n_sets, bytes, 0,
                [&](int i, CudaStream stream) { launch(i, part, stream); });
  if (part.scores)
    state.counters["FMA/s"] = benchmark::Counter(n_scores * s.n_heads * s.dim,
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_indexer_cuda_benchmarks() {
  for (const Shape& s : {kGlm, kMicro})
    for (const auto& [n_rows, n_sequences] : {std::pair{1, 1}, {16, 16}, {512, 1}})
      for (const int n_keys : {4096, 16384, 32768})
        for (const Part& part : kParts) {
          const Load load = {n_rows, n_sequences, n_keys};
          const std::string name = "indexer_cuda/" + std::string(s.name) +
                                   "/rows:" + std::to_string(n_rows) +
                                   "/sequences:" + std::to_string(n_sequences) +
                                   "/keys:" + std::to_string(n_keys) + "/" + part.name;
          add_cuda_benchmark(name,
                             [=](benchmark::State& state) { index_on(state, s, load, part); });
        }
}

}  // namespace assay::kernels
