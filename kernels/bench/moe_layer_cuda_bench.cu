// A whole sparse MLP on a GPU, one row: all that stands between a layer's norm and its residual.
// Router, its choice, the shared expert as GPTQ, the routed experts and their sum; recorded in a
// graph, as an engine decodes, and launch by launch. Checked against the reference.
//
// floor_us is what its bytes would take at a copy's speed: the router's weights, the chosen
// experts' codes and scales, the shared expert's weights, activations once per reader and writer.
// x_floor is the time over that; the bar is 1.5. An empty kernel takes its time too: of as many
// launches that is launch_floor_us, and x_floors is the time over both.
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/moe_experts_bench.cuh"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/moe_input_cuda.h"
#include "kernels/project.h"
#include "kernels/route.h"

namespace assay::kernels {
namespace {

constexpr float kScaling = 2.5f;
constexpr float kChosen = 10;  // a bias that no score outweighs

class Layer {
 public:
  Layer(const BenchExperts& experts, const std::string& kind)
      : e_(experts),
        s_(experts.shape),
        host_router_(spine_matrix("bf16", s_.n_experts, s_.hidden)),
        host_up_(spine_matrix(kind, s_.width, s_.hidden)),
        host_down_(spine_matrix(kind, s_.hidden, s_.width)),
        router_(host_router_, n_sets()),
        gate_(host_up_, n_sets()),
        up_(host_up_, n_sets()),
        down_(host_down_, n_sets()),
        host_bias_(area(1, s_.n_experts)) {
    for (int k = 0; k < s_.top_k; ++k) host_bias_[static_cast<std::size_t>(id_of(k))] = kChosen;
    bias_ = DeviceArray<float>(host_bias_);
    std::vector<DeviceMatrix> table;
    for (int i = 0; i < n_sets(); ++i)
      for (int x = 0; x < s_.n_experts; ++x)
        for (int part = 0; part < 3; ++part)
          table.push_back(
              e_.matrices[area(i * s_.top_k + x % s_.top_k, 3) + static_cast<std::size_t>(part)]);
    experts_ = DeviceArray<DeviceMatrix>(table);
  }

  int n_sets() const { return e_.n_sets; }
  void launch(int set, CudaStream stream) const {
    const DeviceMatrix router = router_.at(set), gate = gate_.at(set), up = up_.at(set),
                       down = down_.at(set);
    moe_input_cuda({.router = &router,
                    .gate = &gate,
                    .up = &up,
                    .x = e_.x,
                    .x_stride = s_.hidden,
                    .n_tokens = 1,
                    .logits = logits_.data(),
                    .route = {.bias = bias_.data(),
                              .n_experts = s_.n_experts,
                              .top_k = s_.top_k,
                              .normalise = true,
                              .scaling = kScaling,
                              .expert = expert_.data(),
                              .weight = weight_.data(),
                              .margin = margin_.data()},
                    .h = shared_hidden_.data()},
                   stream);
    MoeCudaArgs args = e_.args(0, h_.data(), residual_.data());
    args.experts = experts_.data() + area(set, 3 * s_.n_experts);
    args.expert = expert_.data();
    args.weight = weight_.data();
    args.shared = nullptr;
    args.shared_down = {&down, shared_hidden_.data(), shared_.data()};
    moe_cuda(args, stream);
  }

  bool is_right() const {
    copy_to_device(residual_.data(), e_.host_shared.data(), sizeof(float) * area(1, s_.hidden),
                   nullptr);
    launch(n_sets() - 1, nullptr);
    const std::vector<float> weight = expected_weights();
    const std::vector<int> chosen = expert_.host();
    for (int k = 0; k < s_.top_k; ++k)
      if (chosen[static_cast<std::size_t>(k)] != id_of(k)) return false;
    if (!(relative_error(weight, weight_.host()) < 1e-5)) return false;
    return is_right(residual_.host(), weight, expected_shared_hidden());
  }

  double bytes() const {
    // Read: x by the router, the shared expert and the experts, logits and what is between two
    // products; all but x is written too, and the residual is read.
    const double values = 3.0 * s_.hidden + 2.0 * s_.n_experts + 2.0 * s_.width + 2.0 * s_.hidden +
                          2.0 * s_.top_k * s_.width + 2.0 * s_.hidden;
    return e_.set_bytes + file_bytes(host_router_) + 2 * file_bytes(host_up_) +
           file_bytes(host_down_) + sizeof(float) * values;
  }

 private:
  // A set's experts stand in turn in the router's list: this one is slot k's.
  int id_of(int k) const { return k * (s_.top_k + 1); }

  std::vector<float> expected_weights() const {
    std::vector<float> logits(area(1, s_.n_experts)), weight(area(1, s_.top_k));
    project_reference(host_router_.dense, e_.host_x.data(), 1, s_.hidden, logits.data(),
                      s_.n_experts, false);
    std::vector<int> expert(weight.size());
    route_reference({.logits = logits.data(),
                     .bias = host_bias_.data(),
                     .n_experts = s_.n_experts,
                     .top_k = s_.top_k,
                     .normalise = true,
                     .scaling = kScaling,
                     .expert = expert.data(),
                     .weight = weight.data(),
                     .margin = nullptr});
    return weight;
  }
  std::vector<float> expected_shared_hidden() const {
    std::vector<float> product(area(1, s_.width)), h(product.size());
    project_reference(host_up_.scaled, e_.host_x.data(), 1, s_.hidden, product.data(), s_.width,
                      false);
    swiglu_reference(product.data(), product.data(), s_.width, h.data());
    return h;
  }
  bool is_right(const std::vector<float>& all, const std::vector<float>& weight,
                const std::vector<float>& shared_hidden) const {
    std::vector<float> expected, got;
    for (const int r : checked_rows(s_.hidden)) {
      const auto row = static_cast<std::size_t>(r);
      double sum = static_cast<double>(e_.host_shared[row]) + e_.expected(r, weight);
      for (int i = 0; i < s_.width; ++i)
        sum +=
            host_down_.at(r, i) * static_cast<double>(shared_hidden[static_cast<std::size_t>(i)]);
      expected.push_back(static_cast<float>(sum));
      got.push_back(all[row]);
    }
    return relative_error(expected, got) <= moe_bound(s_);
  }

  const BenchExperts& e_;
  MoeShape s_;
  const HostMatrix &host_router_, &host_up_, &host_down_;
  MatrixCopies router_, gate_, up_, down_;
  std::vector<float> host_bias_;
  DeviceArray<float> bias_;
  DeviceArray<DeviceMatrix> experts_;  // (n_sets, n_experts, 3)
  DeviceArray<float> logits_{poison(area(1, s_.n_experts))}, weight_{poison(area(1, s_.top_k))},
      margin_{poison(1)}, shared_hidden_{poison(area(1, s_.width))},
      shared_{poison(area(1, s_.hidden))}, h_{poison(area(s_.top_k, s_.width))},
      residual_{poison(area(1, s_.hidden))};
  DeviceArray<int> expert_{std::vector<int>(area(1, s_.top_k), -1)};
};

void layer_on(benchmark::State& state, const MoeShape& s, const MoeBits& bits,
              const std::string& shared, Launching how) {
  const BenchExperts& e = experts_of(s, bits);
  const Layer layer(e, shared);
  if (!layer.is_right()) {
    state.SkipWithError("wrong result");
    return;
  }
  const double n_weights = 3.0 * s.hidden * s.width * (s.top_k + 1) + 1.0 * s.n_experts * s.hidden;
  const double seconds = time_launches(
      state, layer.n_sets(), layer.bytes(), n_weights,
      [&](int i, CudaStream stream) { layer.launch(i, stream); }, how);
  const int n_launches = n_launches_of([&](CudaStream stream) { layer.launch(0, stream); });
  const double floor_s = layer.bytes() / copy_bytes_per_s(),
               launch_s =
                   how == Launching::kGraph ? launch_floors().graph_s : launch_floors().stream_s;
  state.SetLabel(e.plan.text());
  state.counters["bits"] = bits.code_bits(s.top_k);
  state.counters["launches"] = n_launches;
  state.counters["floor_us"] = floor_s * 1e6;
  state.counters["launch_floor_us"] = n_launches * launch_s * 1e6;
  state.counters["x_floor"] = seconds / floor_s;
  state.counters["x_floors"] = seconds / (floor_s + n_launches * launch_s);
}

}  // namespace

void register_moe_layer_cuda_benchmarks() {
  for (const MoeShape& s : {kGlmMoe, kMicroMoe})
    for (const MoeBits& bits : {all_of(0), all_of(1), all_of(2), all_of(3), kMixture})
      for (const std::string shared : {"gptq4", "gptq8"})
        for (const Launching how : {Launching::kGraph, Launching::kStream})
          add_cuda_benchmark(
              "moe_layer_cuda/" + std::string(s.name) + "/bits:" + bits.name + "/shared:" + shared +
                  (how == Launching::kGraph ? "/graph" : "/stream"),
              [=](benchmark::State& state) { layer_on(state, s, bits, shared, how); });
}

}  // namespace assay::kernels
