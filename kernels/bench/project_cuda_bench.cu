// Dense products of one row on a GPU and of a few: GLM-5.2's shapes and micro-glm's in every kind
// that a spine comes in.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/cuda_registry.h"
#include "kernels/bench/spine_bench_data.cuh"
#include "kernels/project_cuda.h"

namespace assay::kernels {
namespace {

struct Shape {
  const char* name;
  int n_rows, n_cols;
};
constexpr Shape kShapes[] = {{"q_a", 2048, 6144},
                             {"q_b", 16384, 2048},
                             {"kv_a", 576, 6144},
                             {"o", 6144, 16384},
                             {"dense_gate", 12288, 6144},
                             {"shared_down", 6144, 2048},
                             {"lm_head", 154880, 6144},
                             {"micro-glm/q_a", 192, 320},
                             {"micro-glm/q_b", 384, 192},
                             {"micro-glm/kv_a", 160, 320},
                             {"micro-glm/o", 320, 384},
                             {"micro-glm/shared_down", 320, 96},
                             {"micro-glm/lm_head", 3072, 320}};
// Which choose experts: in float32.
constexpr Shape kRouters[] = {{"router", 256, 6144}, {"micro-glm/router", 16, 320}};
// Of n_tokens rows of x. What is read is counted once, however many they are.
void project_on(benchmark::State& state, const std::string& kind, const Shape& s, int n_tokens) {
  const HostMatrix& host = spine_matrix(kind, s.n_rows, s.n_cols);
  const double bytes = file_bytes(host);
  const int n = n_cold_copies(bytes);
  const MatrixCopies& w = kept<MatrixCopies>(
      kind + "/" + s.name, [&] { return std::make_unique<MatrixCopies>(host, n); });
  const std::vector<float> x = bench_floats(area(n_tokens, s.n_cols), 2);
  const DeviceArray<float> dx(x), y(poison(area(n_tokens, s.n_rows)));
  const auto launch = [&](int i, CudaStream stream) {
    project_cuda(w.at(i), dx.data(), s.n_cols, n_tokens, y.data(), s.n_rows, false, stream);
  };
  launch(n - 1, nullptr);
  const std::vector<float> got = y.host();
  for (int t = 0; t < n_tokens; ++t)
    for (int r = s.n_rows - 1; r >= 0; r -= std::max(1, s.n_rows / 13))
      if (!is_product(host, r, &x[area(t, s.n_cols)],
                      got[area(t, s.n_rows) + static_cast<std::size_t>(r)])) {
        state.SkipWithError("wrong result");
        return;
      }
  time_launches(state, n, bytes, static_cast<double>(n_tokens) * s.n_rows * s.n_cols, launch);
}

// What a layer multiplies its normed input with ahead of attention: q_a and kv_a, and where it
// indexes the index's keys and head weights, which a quantised spine leaves in bf16.
struct AttentionInput {
  const char* name;
  int n_cols;
  std::vector<int> n_rows;
};
const std::vector<AttentionInput> kAttentionInputs = {
    {"attention_in", 6144, {2048, 576}},
    {"attention_and_index_in", 6144, {2048, 576, 128, 32}},
    {"micro-glm/attention_in", 320, {192, 160}}};

class AttentionMatrices {
 public:
  AttentionMatrices(const std::string& kind, const AttentionInput& in) : in_(in) {
    for (std::size_t i = 0; i < in.n_rows.size(); ++i) {
      hosts_.push_back(&spine_matrix(i < 2 ? kind : "bf16", in.n_rows[i], in.n_cols));
      bytes_ += file_bytes(*hosts_.back());
      y_.emplace_back(poison(static_cast<std::size_t>(in.n_rows[i])));
    }
    n_copies_ = n_cold_copies(bytes_);
    for (const HostMatrix* host : hosts_) copies_.emplace_back(*host, n_copies_);
  }
  double bytes() const { return bytes_; }
  int n_copies() const { return n_copies_; }

  void multiply(int copy, const float* x, bool apart, CudaStream stream) const {
    std::vector<DeviceMatrix> m;
    for (const MatrixCopies& c : copies_) m.push_back(c.at(copy));
    std::vector<DeviceProduct> products;
    for (std::size_t i = 0; i < m.size(); ++i)
      products.push_back({&m[i], y_[i].data(), m[i].n_rows});
    if (!apart) return project_cuda(products, x, in_.n_cols, 1, stream);
    for (const DeviceProduct& p : products)
      project_cuda(*p.matrix, x, in_.n_cols, 1, p.y, p.y_stride, false, stream);
  }
  bool is_right(const float* x) const {
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      const std::vector<float> got = y_[i].host();
      for (int r = in_.n_rows[i] - 1; r >= 0; r -= std::max(1, in_.n_rows[i] / 13))
        if (!is_product(*hosts_[i], r, x, got[static_cast<std::size_t>(r)])) return false;
    }
    return true;
  }

 private:
  const AttentionInput& in_;
  std::vector<const HostMatrix*> hosts_;
  std::vector<MatrixCopies> copies_;
  std::vector<DeviceArray<float>> y_;
  double bytes_ = 0;
  int n_copies_ = 0;
};

// In as few launches as there can be, or a launch each.
void attention_in_on(benchmark::State& state, const std::string& kind, const AttentionInput& in,
                     bool apart) {
  const AttentionMatrices& m = kept<AttentionMatrices>(
      kind + "/" + in.name, [&] { return std::make_unique<AttentionMatrices>(kind, in); });
  const std::vector<float> x = bench_floats(static_cast<std::size_t>(in.n_cols), 2);
  const DeviceArray<float> dx(x);
  const auto launch = [&](int i, CudaStream stream) { m.multiply(i, dx.data(), apart, stream); };
  launch(m.n_copies() - 1, nullptr);
  if (!m.is_right(x.data())) {
    state.SkipWithError("wrong result");
    return;
  }
  double weights = 0;
  for (const int n_rows : in.n_rows) weights += static_cast<double>(n_rows) * in.n_cols;
  time_launches(state, m.n_copies(), m.bytes(), weights, launch);
}

}  // namespace

void register_project_cuda_benchmarks() {
  for (const Shape& s : kRouters)
    add_cuda_benchmark("project_cuda/" + std::string(s.name) + "/f32",
                       [=](benchmark::State& state) { project_on(state, "f32", s, 1); });
  for (const char* kind : {"bf16", "gptq8", "gptq4"})
    for (const AttentionInput& in : kAttentionInputs)
      for (const bool apart : {false, true})
        add_cuda_benchmark(
            "project_cuda/" + std::string(in.name) + "/" + kind + (apart ? "/apart" : ""),
            [=, &in](benchmark::State& state) { attention_in_on(state, kind, in, apart); });
  constexpr int kMostRowsOfCodes = 16384;  // a head is bf16
  for (const char* kind : {"bf16", "gptq8", "gptq4", "fp8"}) {
    for (const Shape& s : kShapes)
      if (std::string(kind) == "bf16" || s.n_rows <= kMostRowsOfCodes)
        add_cuda_benchmark("project_cuda/" + std::string(s.name) + "/" + kind,
                           [=](benchmark::State& state) { project_on(state, kind, s, 1); });
    for (const Shape& s : {kShapes[1], kShapes[3]})  // several sequences' next tokens, a prompt's
      for (const int n_tokens : {2, 4, 8, 64})
        add_cuda_benchmark("project_cuda/" + std::string(s.name) + "/" + kind +
                               "/rows:" + std::to_string(n_tokens),
                           [=](benchmark::State& state) { project_on(state, kind, s, n_tokens); });
  }
}

}  // namespace assay::kernels
