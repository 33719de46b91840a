// What ranks have of a residual, added up on each of them in order of rank, once NCCL has gathered
// it. Checked against the same sum on the host, bit for bit.
#include <memory>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/layer_cuda.h"

namespace assay::kernels {
namespace {

struct Parts {
  Parts(int ranks, std::size_t values)
      : n_ranks(ranks),
        n(values),
        bytes(4.0 * (ranks + 1) * static_cast<double>(values)),
        n_copies(n_cold_copies(bytes)),
        host(bench_floats(static_cast<std::size_t>(ranks) * values, 1)),
        parts(host, n_copies),
        sum(poison(values), n_copies) {}
  void launch(int i, CudaStream stream) const {
    sum_parts_cuda(parts.at(i), n_ranks, n, sum.at(i), stream);
  }
  bool is_right() const {
    std::vector<float> expected(host.begin(), host.begin() + static_cast<std::ptrdiff_t>(n));
    for (std::size_t at = n; at < host.size(); ++at) expected[at % n] += host[at];
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      if (sum.host(i, n) != expected) return false;
    }
    return true;
  }
  int n_ranks;
  std::size_t n;
  double bytes;
  int n_copies;
  std::vector<float> host;
  Copies<float> parts, sum;
};

void sum_parts_on(benchmark::State& state, const BenchModel& m, int n_rows, int n_ranks) {
  time_if_right(
      state, kept<Parts>(
                 std::string(m.name) + "/" + std::to_string(n_rows) + "/" + std::to_string(n_ranks),
                 [&] { return std::make_unique<Parts>(n_ranks, area(n_rows, m.hidden)); }));
}

}  // namespace

void register_sum_parts_cuda_benchmarks() {
  for (const int n_ranks : {2, 8})
    add_for_models("sum_parts_cuda/ranks:" + std::to_string(n_ranks),
                   [=](benchmark::State& state, const BenchModel& m, int n_rows) {
                     sum_parts_on(state, m, n_rows, n_ranks);
                   });
}

}  // namespace assay::kernels
