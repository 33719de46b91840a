// RoPE of a query's heads on a GPU: from the projection's rows to the absorbed query's, as
// attention takes them. Checked against the reference. B/s is of what is rotated, read and written.
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/layer_cuda.h"

namespace assay::kernels {
namespace {

struct Rotations {
  Rotations(const BenchModel& model, int rows)
      : m(model),
        n_rows(rows),
        bytes(4.0 * rows * (2.0 * m.n_heads * m.qk_rope + m.qk_rope)),
        n_copies(n_cold_copies(bytes)),
        rope(m, 1000, rows, n_copies),
        host_query(bench_floats(area(rows, m.n_heads * m.qk_head()), 1)),
        query(host_query, n_copies),
        absorbed(poison(area(rows, m.n_heads * m.kv_row())), n_copies) {}
  void launch(int i, CudaStream stream) const {
    rope_cuda(rope.at(i), {query.at(i) + m.qk_nope, m.n_heads * m.qk_head(), m.qk_head()},
              {absorbed.at(i) + m.kv_lora, m.n_heads * m.kv_row(), m.kv_row()}, m.n_heads, n_rows,
              stream);
  }
  bool is_right() const {
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      if (!is_right(absorbed.host(i, area(n_rows, m.n_heads * m.kv_row())))) return false;
    }
    return true;
  }
  // Each vector's last values, rotated; nothing before them is written.
  bool is_right(const std::vector<float>& got) const {
    for (int r = 0; r < n_rows; ++r)
      for (int h = 0; h < m.n_heads; ++h) {
        const auto from =
            host_query.begin() + static_cast<std::ptrdiff_t>(area(r * m.n_heads + h, m.qk_head()));
        const auto to =
            got.begin() + static_cast<std::ptrdiff_t>(area(r * m.n_heads + h, m.kv_row()));
        std::vector<float> expected(from + m.qk_nope, from + m.qk_head());
        rope.rotate(r, expected.data());
        // Two products of values below 1 and their sum, each rounded.
        if (!all_near(expected, {to + m.kv_lora, to + m.kv_row()}, 0, 8 * 0x1p-24)) return false;
        if (!std::isnan(to[m.kv_lora - 1])) return false;
      }
    return true;
  }
  BenchModel m;
  int n_rows;
  double bytes;
  int n_copies;
  RopeCopies rope;
  std::vector<float> host_query;
  Copies<float> query, absorbed;
};

}  // namespace

void register_rope_cuda_benchmarks() { add_for_models("rope_cuda", time_rows<Rotations>); }

}  // namespace assay::kernels
