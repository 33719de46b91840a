// A token's row of the latent cache on a GPU: norm, rotation and the two halves that are stored.
// One row, a batch of conversations, and a prompt chunk, whose rows follow each other. Checked
// against the reference.
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/dtype.h"
#include "kernels/layer_cuda.h"
#include "kernels/norm.h"

namespace assay::kernels {
namespace {

constexpr float kEps = 1e-6f;

struct Appends {
  Appends(const BenchModel& model, int rows)
      : m(model),
        n_rows(rows),
        bytes(8.0 * rows * m.kv_row() + 4.0 * m.kv_lora + 4.0 * rows * m.qk_rope),
        n_copies(n_cold_copies(bytes)),
        rope(m, 0, rows, n_copies),
        host_in(bench_floats(area(rows, m.kv_row()), 1)),
        host_weight(bench_floats(static_cast<std::size_t>(m.kv_lora), 2)),
        in(host_in, n_copies),
        weight(host_weight, n_copies),
        to(std::vector<std::uint16_t>(area(rows, 2 * m.kv_row()), kNan), rows, n_copies) {}
  void launch(int i, CudaStream stream) const {
    append_kv_cuda({.in = in.at(i),
                    .norm_weight = weight.at(i),
                    .eps = kEps,
                    .kv_lora = m.kv_lora,
                    .n_rows = n_rows,
                    .cache = to.at(i),
                    .position = to.position.data()},
                   rope.at(i), stream);
  }
  bool is_right() const {
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      const auto cache = to.caches.host(i, area(n_rows, 2 * m.kv_row()));
      for (int r = 0; r < n_rows; ++r)
        if (!is_right(r, &cache[area(n_rows - 1 - r, 2 * m.kv_row())])) return false;
    }
    return true;
  }
  // Row r of the input as its cache row, high halves and low ones, has it.
  bool is_right(int r, const std::uint16_t* halves) const {
    std::vector<float> expected(&host_in[area(r, m.kv_row())],
                                &host_in[area(r, m.kv_row())] + m.kv_row());
    rms_norm_reference(expected.data(), host_weight.data(), kEps, m.kv_lora, expected.data());
    rope.rotate(r, &expected[static_cast<std::size_t>(m.kv_lora)]);
    std::vector<float> got;
    for (int c = 0; c < m.kv_row(); ++c)
      got.push_back(f16_to_f32(halves[c]) + f16_to_f32(halves[m.kv_row() + c]));
    // Two halves hold 22 bits, but no less than half of binary16's smallest step, and a rotation
    // adds up values below 1.
    return all_near(expected, got, kRmsNormCudaBound + 0x1p-21, 0x1p-21);
  }
  static constexpr std::uint16_t kNan = 0x7E00;
  BenchModel m;
  int n_rows;
  double bytes;
  int n_copies;
  RopeCopies rope;
  std::vector<float> host_in, host_weight;
  Copies<float> in, weight;
  AppendCopies<std::uint16_t> to;
};

}  // namespace

void register_append_kv_cuda_benchmarks() { add_for_models("append_kv_cuda", time_rows<Appends>); }

}  // namespace assay::kernels
