// A token's row of the indexer's keys on a GPU: layer norm and rotation. One row, a batch of
// conversations, and a prompt chunk. Checked against the reference.
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/layer_cuda.h"
#include "kernels/norm.h"

namespace assay::kernels {
namespace {

constexpr float kEps = 1e-6f;
// Values below 1 in size have a deviation of 0.58 and at most 1.8 of it from their mean; so, with
// weights and biases below 1, at most 160 roundings as rope_cuda_test.cu counts them.
constexpr double kBound = 160 * 0x1p-24;

struct IndexAppends {
  IndexAppends(const BenchModel& model, int rows)
      : m(model),
        n_rows(rows),
        bytes(4.0 * (2.0 * rows * m.index_dim + 2.0 * m.index_dim + rows * m.qk_rope)),
        n_copies(n_cold_copies(bytes)),
        rope(m, 0, rows, n_copies),
        host_in(bench_floats(area(rows, m.index_dim), 1)),
        host_weight(bench_floats(static_cast<std::size_t>(m.index_dim), 2)),
        host_bias(bench_floats(static_cast<std::size_t>(m.index_dim), 3)),
        in(host_in, n_copies),
        weight(host_weight, n_copies),
        bias(host_bias, n_copies),
        to(poison(host_in.size()), rows, n_copies) {}
  void launch(int i, CudaStream stream) const {
    append_index_cuda({.in = in.at(i),
                       .norm_weight = weight.at(i),
                       .norm_bias = bias.at(i),
                       .eps = kEps,
                       .dim = m.index_dim,
                       .n_rows = n_rows,
                       .cache = to.at(i),
                       .position = to.position.data()},
                      rope.at(i), stream);
  }
  bool is_right() const {
    std::vector<float> expected(host_in.size());
    for (int r = 0; r < n_rows; ++r) {
      float* row = &expected[area(n_rows - 1 - r, m.index_dim)];
      layer_norm_reference(&host_in[area(r, m.index_dim)], host_weight.data(), host_bias.data(),
                           kEps, m.index_dim, row);
      rope.rotate(r, row);
    }
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      if (!all_near(expected, to.caches.host(i, expected.size()), 0, kBound)) return false;
    }
    return true;
  }
  BenchModel m;
  int n_rows;
  double bytes;
  int n_copies;
  RopeCopies rope;
  std::vector<float> host_in, host_weight, host_bias;
  Copies<float> in, weight, bias;
  AppendCopies<float> to;
};

}  // namespace

void register_append_index_cuda_benchmarks() {
  add_for_models("append_index_cuda", time_rows<IndexAppends>);
}

}  // namespace assay::kernels
