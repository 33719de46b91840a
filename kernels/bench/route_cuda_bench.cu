// The router on a GPU: its choice alone, and with the product that it chooses by. Both checked
// against the reference.
#include <memory>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/model_bench_data.h"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/route.h"

namespace assay::kernels {
namespace {

constexpr float kScaling = 2.5f;

struct Router {
  Router(const BenchModel& model, int rows, bool projects)
      : m(model),
        n_rows(rows),
        has_product(projects),
        host_gate(spine_matrix("bf16", m.n_experts, m.hidden)),
        bytes((projects ? host_gate.values.size() + 4.0 * rows * m.hidden
                        : 4.0 * rows * m.n_experts) +
              4.0 * m.n_experts + 4.0 * rows * (2 * m.top_k + 1)),
        n_copies(n_cold_copies(bytes)),
        host_x(bench_floats(area(rows, m.hidden), 1)),
        host_bias(bench_floats(area(m.n_experts, 1), 2)),
        gate(host_gate, projects ? n_copies : 1),
        x(host_x, projects ? n_copies : 1),
        bias(host_bias, n_copies),
        logits(
            projects ? poison(area(rows, m.n_experts)) : bench_floats(area(rows, m.n_experts), 3),
            n_copies),
        weight(poison(area(rows, m.top_k)), n_copies),
        margin(poison(area(rows, 1)), n_copies),
        expert(std::vector<int>(area(rows, m.top_k), -1), n_copies) {}
  void launch(int i, CudaStream stream) const {
    if (has_product)
      project_cuda(gate.at(i), x.at(i), m.hidden, n_rows, logits.at(i), m.n_experts, false, stream);
    route_cuda({.logits = logits.at(i),
                .bias = bias.at(i),
                .n_rows = n_rows,
                .n_experts = m.n_experts,
                .top_k = m.top_k,
                .normalise = true,
                .scaling = kScaling,
                .expert = expert.at(i),
                .weight = weight.at(i),
                .margin = margin.at(i)},
               stream);
  }
  bool is_right() const {
    for (const int i : {0, n_copies - 1}) {
      launch(i, nullptr);
      const std::vector<float> scores = logits.host(i, area(n_rows, m.n_experts));
      if ((has_product && !are_products(scores)) || !chose_rightly(i, scores)) return false;
    }
    return true;
  }
  bool are_products(const std::vector<float>& scores) const {
    for (int t = n_rows - 1; t >= 0; t -= std::max(1, n_rows / 7))
      for (int e = 0; e < m.n_experts; ++e) {
        const std::size_t at = area(t, m.n_experts) + static_cast<std::size_t>(e);
        if (!is_product(host_gate, e, &host_x[area(t, m.hidden)], scores[at])) return false;
      }
    return true;
  }
  // By the GPU's own logits, so that no near-tie decides.
  bool chose_rightly(int i, const std::vector<float>& scores) const {
    std::vector<int> chosen(area(n_rows, m.top_k));
    std::vector<float> weights(chosen.size()), margins(area(n_rows, 1));
    for (int r = 0; r < n_rows; ++r)
      route_reference({.logits = &scores[area(r, m.n_experts)],
                       .bias = host_bias.data(),
                       .n_experts = m.n_experts,
                       .top_k = m.top_k,
                       .normalise = true,
                       .scaling = kScaling,
                       .expert = &chosen[area(r, m.top_k)],
                       .weight = &weights[area(r, m.top_k)],
                       .margin = &margins[static_cast<std::size_t>(r)]});
    return expert.host(i, chosen.size()) == chosen &&
           all_near(weights, weight.host(i, weights.size()), 2e-7, 0) &&
           all_near(margins, margin.host(i, margins.size()), 0, 1e-7);
  }
  BenchModel m;
  int n_rows;
  bool has_product;
  const HostMatrix& host_gate;
  double bytes;
  int n_copies;
  std::vector<float> host_x, host_bias;
  MatrixCopies gate;
  Copies<float> x, bias, logits, weight, margin;
  Copies<int> expert;
};

void route_on(benchmark::State& state, const BenchModel& m, int n_rows, bool has_product) {
  const Router& router = kept<Router>(
      std::string(m.name) + "/" + std::to_string(n_rows) + (has_product ? "/product" : ""),
      [&] { return std::make_unique<Router>(m, n_rows, has_product); });
  time_if_right(state, router, has_product ? static_cast<double>(m.n_experts) * m.hidden : 0);
}

}  // namespace

void register_route_cuda_benchmarks() {
  add_for_models("route_cuda", [](benchmark::State& state, const BenchModel& m, int n_rows) {
    route_on(state, m, n_rows, false);
  });
  add_for_models("router_cuda", [](benchmark::State& state, const BenchModel& m, int n_rows) {
    route_on(state, m, n_rows, true);
  });
}

}  // namespace assay::kernels
