// For benchmarks: the experts that one token chose, in device memory as often as no cache holds
// them, and what the reference makes of them.
#pragma once

#include <cuda_fp16.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/bench/bench_data.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/bench/moe_bench_data.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_matrix.h"
#include "kernels/moe_cuda.h"
#include "kernels/swiglu.h"
#include "kernels/vq_slices.h"

namespace assay::kernels {

// Rows of a result that the reference has patience for: some of every part, the last among them.
inline std::vector<int> checked_rows(int n_rows) {
  std::vector<int> rows;
  for (int r = n_rows - 1; r >= 0; r -= std::max(1, n_rows / 61)) rows.push_back(r);
  return rows;
}

// A result that went through two float32 products, relative to the largest: roundings of random
// signs stay a hundredfold below as many units as there are terms.
inline double moe_bound(const MoeShape& s) { return (s.hidden + s.width) * 0x1p-24; }

// By the row, in units whatever their bits, or as an engine plans them.
enum class MoeDesign { kRows, kUnits, kSlices, kPlanned };

class BenchExperts {
 public:
  BenchExperts(const MoeShape& s, const MoeBits& bits, MoeDesign design)
      : shape(s),
        host_x(bench_floats(static_cast<std::size_t>(s.hidden), 5)),
        host_shared(bench_floats(static_cast<std::size_t>(s.hidden), 6)) {
    for (float& v : host_shared) v /= 256;  // or micro-glm's experts would drown in it
    for (int k = 0; k < s.top_k; ++k)
      for (int part = 0; part < 3; ++part) {
        slots_.push_back(&matrix(bits.tier[k][part], part == 2, (k + part) % kVariants));
        set_bytes += slots_.back()->bytes();
      }
    n_sets = std::min(static_cast<int>(static_cast<double>(kDeviceWorkingSet) / set_bytes) + 1, 64);
    std::vector<int> ids;
    for (int e = 0; e < n_sets * s.top_k; ++e) ids.push_back(e);
    std::vector<VqMatrix> of_set;
    for (const BenchVq* m : slots_) of_set.push_back(m->w);
    const UnitPlan units = plan_of(of_set, design);
    for (int i = 0; i < n_sets; ++i)
      for (std::size_t j = 0; j < of_set.size(); ++j)
        matrices.push_back(
            units.is_in_units()
                ? memory_.add(of_set[j], units.of(static_cast<int>(j % 3)).form(of_set[j]))
                : memory_.add(of_set[j]));
    plan = MoePlan(units, matrices);
    on_device_ = memory_.add_array(matrices);
    expert_ = memory_.add_array(ids);
    weight_ = memory_.add(host_weight());
    x = memory_.add(host_x), shared_ = memory_.add(host_shared);
    sums_ = DeviceArray<float>(plan.sums_per_token(s.hidden, s.width));
    find_hidden();
  }

  // Of set `set`, one row, each expert's weight a quarter.
  MoeCudaArgs args(int set, float* h, float* residual) const {
    return {.plan = &plan,
            .experts = on_device_,
            .expert = expert_ + set * shape.top_k,
            .weight = weight_,
            .n_tokens = 1,
            .top_k = shape.top_k,
            .hidden = shape.hidden,
            .width = shape.width,
            .x = x,
            .h = h,
            .shared = shared_,
            .residual = residual,
            .sums = sums_.data(),
            .sums_tokens = 1};
  }
  std::vector<float> host_weight() const {
    return std::vector<float>(static_cast<std::size_t>(shape.top_k), 0.25f);
  }
  // Σ_k weight_k · expert_k(x), of one row.
  double expected(int row, const std::vector<float>& weight) const {
    double sum = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      const VqMatrix& down = slots_[3 * k + 2]->w;
      for (int i = 0; i < shape.width; ++i)
        sum += static_cast<double>(weight[k]) * static_cast<double>(weight_at(down, row, i)) *
               static_cast<double>(hidden_[k][static_cast<std::size_t>(i)]);
    }
    return sum;
  }

  MoeShape shape;
  std::vector<float> host_x, host_shared;
  std::vector<DeviceMatrix> matrices;  // (n_sets, top_k, 3)
  MoePlan plan;
  const float* x;
  int n_sets = 0;
  double set_bytes = 0;

 private:
  static constexpr int kVariants = 3;  // so that no expert is another's, nor its gate its up

  UnitPlan plan_of(const std::vector<VqMatrix>& experts, MoeDesign design) const {
    return design == MoeDesign::kRows     ? UnitPlan{}
           : design == MoeDesign::kUnits  ? plan_units(experts, shape.top_k, max_shared_bytes())
           : design == MoeDesign::kSlices ? plan_slices(experts, shape.top_k, max_shared_bytes())
                                          : plan_moe_units(experts, shape.top_k);
  }
  const BenchVq& matrix(int tier, bool down, int variant) {
    auto& m = pool_[{tier, down, variant}];
    if (m == nullptr) {
      const VqTier& t = kVqTiers[tier];
      std::vector<float>& book = books_[tier];
      if (book.empty()) {
        book =
            bench_floats(static_cast<std::size_t>(t.dim) * static_cast<std::size_t>(t.n_codes), 2);
        for (float& v : book) v = static_cast<float>(__half(v));
      }
      const int n_rows = down ? shape.hidden : shape.width,
                n_cols = down ? shape.width : shape.hidden;
      m = std::make_unique<BenchVq>(t, book, n_rows, n_cols, shape.group,
                                    static_cast<std::uint64_t>(10 + 2 * variant + (down ? 1 : 0)));
    }
    return *m;
  }
  // silu(gate x) * (up x) of each expert.
  void find_hidden() {
    std::map<const BenchVq*, std::vector<float>> products;
    const auto product = [&](const BenchVq* m) -> const std::vector<float>& {
      std::vector<float>& y = products[m];
      if (y.empty()) {
        y.resize(static_cast<std::size_t>(shape.width));
        project_reference(m->w, host_x.data(), 1, shape.hidden, y.data(), shape.width, false);
      }
      return y;
    };
    for (std::size_t k = 0; k < static_cast<std::size_t>(shape.top_k); ++k) {
      const std::vector<float>&gate = product(slots_[3 * k]), &up = product(slots_[3 * k + 1]);
      hidden_.emplace_back(gate.size());
      swiglu_reference(gate.data(), up.data(), shape.width, hidden_.back().data());
    }
  }

  std::map<int, std::vector<float>> books_;
  std::map<std::tuple<int, bool, int>, std::unique_ptr<BenchVq>> pool_;
  std::vector<const BenchVq*> slots_;       // (top_k, 3)
  std::vector<std::vector<float>> hidden_;  // (top_k, width)
  DeviceWeights memory_;
  DeviceArray<float> sums_;
  const DeviceMatrix* on_device_;
  const int* expert_;
  const float *weight_, *shared_;
};

// The last one that was asked for stays.
inline const BenchExperts& experts_of(const MoeShape& s, const MoeBits& bits,
                                      MoeDesign design = MoeDesign::kPlanned) {
  return kept<BenchExperts>(
      std::string(s.name) + "/" + bits.name + "/" + std::to_string(static_cast<int>(design)),
      [&] { return std::make_unique<BenchExperts>(s, bits, design); });
}

}  // namespace assay::kernels
