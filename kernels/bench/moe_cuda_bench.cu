// The routed experts of one layer on a GPU: eight of GLM-5.2's and four of micro-glm's, of every
// tier, in partial sums, in units and by the row, whose weights no cache holds. Each result is
// checked against the reference.
#include <string>
#include <utility>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/moe_experts_bench.cuh"

namespace assay::kernels {
namespace {

void moe_on(benchmark::State& state, const MoeShape& s, const MoeBits& bits, MoeDesign design) {
  const BenchExperts& e = experts_of(s, bits, design);
  if (e.plan.is_grouped() != (design != MoeDesign::kRows)) {
    state.SkipWithError("this GPU's shared memory has no room for the tables");
    return;
  }
  state.SetLabel(e.plan.text());
  const DeviceArray<float> h(poison(area(s.top_k, s.width))),
      residual(std::vector<float>(area(1, s.hidden), 0.0f));
  const auto launch = [&](int i, CudaStream stream) {
    moe_cuda(e.args(i, h.data(), residual.data()), stream);
  };
  launch(e.n_sets - 1, nullptr);
  const std::vector<float> all = residual.host();
  std::vector<float> expected, got;
  for (const int r : checked_rows(s.hidden)) {
    const auto row = static_cast<std::size_t>(r);
    expected.push_back(static_cast<float>(e.expected(r, e.host_weight()) +
                                          static_cast<double>(e.host_shared[row])));
    got.push_back(all[row]);
  }
  if (!(relative_error(expected, got) <= moe_bound(s))) {
    state.SkipWithError("wrong result");
    return;
  }
  time_launches(state, e.n_sets, e.set_bytes, 3.0 * s.hidden * s.width * s.top_k, launch);
}

}  // namespace

void register_moe_cuda_benchmarks() {
  for (const MoeShape& s : {kGlmMoe, kMicroMoe})
    for (const MoeBits& bits : {all_of(0), all_of(1), all_of(2), all_of(3), kMixture})
      for (const auto& [name, design] : {std::pair{"/rows", MoeDesign::kRows},
                                         {"/units", MoeDesign::kUnits},
                                         {"/slices", MoeDesign::kSlices},
                                         {"/planned", MoeDesign::kPlanned}}) {
        if (design == MoeDesign::kSlices && s.group % kSliceScaleColumns != 0) continue;
        add_cuda_benchmark("moe_cuda/" + std::string(s.name) + "/bits:" + bits.name + name,
                           [=](benchmark::State& state) { moe_on(state, s, bits, design); });
      }
}

}  // namespace assay::kernels
