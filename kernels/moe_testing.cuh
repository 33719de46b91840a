// For tests: a layer of experts of random codes, what the reference makes of it, and what moe_cuda
// does, however the experts are laid out.
#pragma once

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/moe_cuda.h"
#include "kernels/vq_slices.h"
#include "kernels/vq_sums.h"

namespace assay::kernels {

inline std::size_t at(int row, int n_cols, int col) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols) +
         static_cast<std::size_t>(col);
}

// A value in double precision, and how far the kernel's may be from it.
struct Near {
  double value, error;
};

// A layer's experts, and what a token's chosen ones make of it.
struct Layer {
  std::vector<HostMatrix> host;  // (n_experts, 3)
  int hidden, width, top_k;
  std::vector<int> expert;
  std::vector<float> weight, x, shared, residual;

  int n_tokens() const { return static_cast<int>(expert.size()) / top_k; }
  std::vector<VqMatrix> matrices() const {
    std::vector<VqMatrix> out;
    for (const HostMatrix& m : host) out.push_back(m.vq);
    return out;
  }

  Near expected(int token, int row) const {
    const double before = static_cast<double>(residual[at(token, hidden, row)]),
                 beside = static_cast<double>(shared[at(token, hidden, row)]);
    double sum = before + beside, size = std::abs(before) + std::abs(beside), error = 0;
    for (int k = 0; k < top_k; ++k) {
      const int slot = token * top_k + k, e = expert[static_cast<std::size_t>(slot)];
      const auto w = static_cast<double>(weight[static_cast<std::size_t>(slot)]);
      const Near y = product(3 * e + 2, row, hidden_of(token, e));
      sum += w * y.value;
      size += std::abs(w * y.value);
      error += std::abs(w) * y.error;
    }
    return {sum, error + (top_k + 3) * 0x1p-24 * (size + error)};
  }
  const std::vector<Near>& hidden_of(int token, int e) const {
    std::vector<Near>& h = hidden_memo[{token, e}];
    if (!h.empty()) return h;
    std::vector<Near> in;
    for (int c = 0; c < hidden; ++c)
      in.push_back({static_cast<double>(x[at(token, hidden, c)]), 0});
    for (int i = 0; i < width; ++i) {
      const Near g = product(3 * e, i, in), u = product(3 * e + 1, i, in);
      const double s = g.value / (1 + std::exp(-g.value));
      // silu is nowhere steeper than 1.1; eight float32 roundings.
      h.push_back({s * u.value, 1.1 * g.error * (std::abs(u.value) + u.error) +
                                    std::abs(s) * u.error + 8 * 0x1p-24 * std::abs(s * u.value)});
    }
    return h;
  }
  // moe_cuda.h's bound, which holds for chains of float32 of as many terms as there are columns if
  // that many take the place of its 90.
  Near product(int matrix, int row, const std::vector<Near>& in) const {
    const std::vector<float>& w = decoded(matrix);
    const int n = static_cast<int>(in.size());
    double sum = 0, size = 0, carried = 0, halves = 0;
    for (int first = 0; first < n; first += part_columns) {
      double largest = 0, weights = 0;
      for (int c = first; c < std::min(n, first + part_columns); ++c) {
        const Near& v = in[static_cast<std::size_t>(c)];
        const double wc = static_cast<double>(w[at(row, n, c)]), most = std::abs(v.value) + v.error;
        sum += wc * v.value;
        size += std::abs(wc) * most;
        carried += std::abs(wc) * v.error;
        weights += std::abs(wc);
        largest = std::max(largest, most);
      }
      halves += 0x1p-39 * largest * weights;
    }
    return {sum, carried + halves + (by_row ? std::max(90, n) : 90) * 0x1p-22 * size};
  }
  const std::vector<float>& decoded(int matrix) const {
    std::vector<float>& w = decoded_memo[matrix];
    const HostMatrix& m = host[static_cast<std::size_t>(matrix)];
    const bool down = matrix % 3 == 2;
    const int n_rows = down ? hidden : width, n_cols = down ? width : hidden;
    if (!w.empty()) return w;
    w.reserve(at(n_rows, n_cols, 0));
    for (int r = 0; r < n_rows; ++r)
      for (int c = 0; c < n_cols; ++c) w.push_back(static_cast<float>(m.at(r, c)));
    return w;
  }
  bool by_row = false;
  int part_columns = 512;  // that share a power of two
  mutable std::map<std::pair<int, int>, std::vector<Near>> hidden_memo;
  mutable std::map<int, std::vector<float>> decoded_memo;  // exact
};

// How a layer is laid out and multiplied.
struct How {
  bool rows = false;             // by the row
  std::size_t shared_bytes = 0;  // as on a device that has this much; 0: the one here
  bool short_rounds = false;     // flushes its sums as often as it can, with two stages
  int sums_tokens = 0;           // in partial sums, so many tokens at a time; 0: as planned
  bool slices = false;           // by slices, sums_tokens at a time
};

inline UnitPlan plan_of(const Layer& l, const How& how) {
  if (how.rows) return {};
  const std::vector<VqMatrix> experts = l.matrices();
  if (how.slices) return plan_slices(experts, l.top_k, kSlicesSharedBytes);
  if (how.sums_tokens > 0) return plan_sums(experts, l.top_k, std::size_t{227} << 10);
  UnitPlan plan = how.shared_bytes == 0 ? plan_moe_units(experts, l.top_k)
                                        : plan_units(experts, l.top_k, how.shared_bytes);
  EXPECT_TRUE(plan.is_in_units());
  if (how.short_rounds)
    for (UnitLaunch* u : {&plan.gate_up, &plan.down}) {
      u->stages = 2;
      u->sum_bytes = static_cast<std::size_t>((u == &plan.down ? l.top_k : 2) * u->parts * 32);
    }
  return plan;
}

// A layer in device memory, as it is launched.
class LaidOutMoe {
 public:
  // shared_down: what makes the shared experts' output, instead of the layer's own.
  LaidOutMoe(const Layer& l, const How& how, const SharedDownCuda& shared_down = {})
      : units_(plan_of(l, how)),
        experts_(uploaded(l)),
        plan_(units_, experts_),
        d_experts_(experts_),
        expert_(l.expert),
        weight_(l.weight),
        x_(l.x),
        shared_(l.shared),
        residual_(l.residual),
        h_(poisoned(l.expert.size() * static_cast<std::size_t>(l.width))),
        sums_(poisoned(plan_.sums_per_token(l.hidden, l.width) *
                       static_cast<std::size_t>(std::max(1, how.sums_tokens)))),
        args_{.plan = &plan_,
              .experts = d_experts_.data(),
              .expert = expert_.data(),
              .weight = weight_.data(),
              .n_tokens = l.n_tokens(),
              .top_k = l.top_k,
              .hidden = l.hidden,
              .width = l.width,
              .x = x_.data(),
              .h = h_.data(),
              .shared = shared_down.matrix != nullptr ? nullptr : shared_.data(),
              .residual = residual_.data(),
              .sums = sums_.data(),
              .sums_tokens = std::max(1, how.sums_tokens),
              .shared_down = shared_down} {}
  LaidOutMoe(const LaidOutMoe&) = delete;

  // Adds to the residual.
  void launch() const { moe_cuda(args_, nullptr); }
  std::string plan() const { return plan_.text(); }
  const DeviceArray<float>& residual() const { return residual_; }

 private:
  std::vector<DeviceMatrix> uploaded(const Layer& l) {
    std::vector<DeviceMatrix> out;
    for (std::size_t i = 0; i < l.host.size(); ++i) {
      const HostMatrix& m = l.host[i];
      out.push_back(units_.is_in_units()
                        ? m.upload(memory_, units_.of(static_cast<int>(i % 3)).form(m.vq))
                        : m.upload(memory_));
    }
    return out;
  }

  DeviceWeights memory_;
  const UnitPlan units_;
  const std::vector<DeviceMatrix> experts_;
  const MoePlan plan_;
  const DeviceArray<DeviceMatrix> d_experts_;
  const DeviceArray<int> expert_;
  const DeviceArray<float> weight_, x_, shared_, residual_, h_, sums_;
  const MoeCudaArgs args_;
};

inline std::vector<float> run_moe(const Layer& l, const How& how = {},
                                  std::string* plan_text = nullptr,
                                  const SharedDownCuda& shared_down = {}) {
  const LaidOutMoe moe(l, how, shared_down);
  if (plan_text != nullptr) *plan_text = moe.plan();
  moe.launch();
  return moe.residual().host();
}

inline void expect_moe(const Layer& l, const std::vector<float>& out, const std::string& what) {
  double worst = 0;
  for (int t = 0; t < l.n_tokens(); ++t)
    for (int r = 0; r < l.hidden; ++r) {
      const Near y = l.expected(t, r);
      const double delta = std::abs(static_cast<double>(out[at(t, l.hidden, r)]) - y.value);
      ASSERT_LE(delta, y.error) << what << ": token " << t << ", row " << r << " is "
                                << out[at(t, l.hidden, r)] << ", expected " << y.value;
      if (y.error > 0) worst = std::max(worst, delta / y.error);
    }
  std::printf("%-28s worst error %.2g of its bound\n", what.c_str(), worst);
}

// A NaN in the first token's x, an infinity in the third's, nothing in the second's.
inline void expect_nan_in_its_token_alone(Layer l, const How& how) {
  const std::vector<float> whole = run_moe(l, how);
  l.x[at(0, l.hidden, 700)] = std::numeric_limits<float>::quiet_NaN();
  l.x[at(2, l.hidden, 3)] = std::numeric_limits<float>::infinity();
  const std::vector<float> out = run_moe(l, how);
  for (int r = 0; r < l.hidden; ++r) {
    EXPECT_TRUE(std::isnan(out[at(0, l.hidden, r)])) << r;
    EXPECT_EQ(out[at(1, l.hidden, r)], whole[at(1, l.hidden, r)]) << r;
    EXPECT_TRUE(std::isnan(out[at(2, l.hidden, r)])) << r;
  }
}

inline Layer random_layer(int hidden, int width, int n_experts, int top_k, int n_tokens,
                          Random& random) {
  Layer l{.host = {}, .hidden = hidden, .width = width, .top_k = top_k};
  for (int t = 0; t < n_tokens; ++t) {
    std::set<int> chosen;
    while (static_cast<int>(chosen.size()) < top_k) chosen.insert(random.below(n_experts));
    l.expert.insert(l.expert.end(), chosen.begin(), chosen.end());
  }
  l.weight = random.floats(l.expert.size());
  const auto n = static_cast<std::size_t>(n_tokens) * static_cast<std::size_t>(hidden);
  l.x = random.floats(n), l.shared = random.floats(n), l.residual = random.floats(n);
  return l;
}

struct TierShape {
  int dim, n_codes;
};
constexpr TierShape kTierShapes[] = {{8, 256}, {8, 4096}, {4, 256}, {4, 4096}, {8, 200}, {4, 3000}};
constexpr int kTiers = 6;
// All experts of one tier share its codebook, as in the release.
using Books = std::map<int, std::vector<float>>;
inline HostMatrix of_tier(const Books& books, int tier, int rows, int cols, int group,
                          Random& random) {
  HostMatrix m =
      vq(kTierShapes[tier].dim, kTierShapes[tier].n_codes, rows, cols, group, false, random);
  m.vq.codebook = books.at(tier).data();
  return m;
}
// Of gate, up and down, expert after expert.
using Tiers = std::vector<std::array<int, 3>>;
inline void add_expert(Layer& l, const Books& books, const int (&tier)[3], int group,
                       Random& random) {
  for (int p = 0; p < 3; ++p)
    l.host.push_back(of_tier(books, tier[p], p < 2 ? l.width : l.hidden, p < 2 ? l.hidden : l.width,
                             group, random));
}

inline Books codebooks(Random& random, bool whole = false) {
  Books books;
  for (int t = 0; t < kTiers; ++t) {
    books[t] = random.floats(static_cast<std::size_t>(kTierShapes[t].dim) *
                             static_cast<std::size_t>(kTierShapes[t].n_codes));
    for (float& v : books[t])
      v = whole ? static_cast<float>(random.below(5) - 2) : static_cast<float>(__half(v));
  }
  return books;
}

inline Layer part_of(const Layer& l, int first, int n) {
  Layer part{.host = l.host, .hidden = l.hidden, .width = l.width, .top_k = l.top_k};
  const auto rows = [&](const auto& v, int width) {
    return std::decay_t<decltype(v)>(v.begin() + first * width, v.begin() + (first + n) * width);
  };
  part.expert = rows(l.expert, l.top_k), part.weight = rows(l.weight, l.top_k);
  part.x = rows(l.x, l.hidden), part.shared = rows(l.shared, l.hidden);
  part.residual = rows(l.residual, l.hidden);
  return part;
}

}  // namespace assay::kernels
