// For tests: what products of operands rounded to bfloat16 are in double precision, and how far
// sums on tensor cores may be off; a layer of experts, and what a token's chosen ones make of it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <vector>

#include "kernels/bf16_weights.cuh"
#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/gemm_cuda.h"

namespace assay::kernels {

inline constexpr Bf16 kBf16Nan = 0x7FC0;

inline Bf16 bf16_bits(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
inline double rounded(double v) {
  return static_cast<double>(bf16_to_f32(bf16_bits(static_cast<float>(v))));
}

inline std::size_t area(int rows, int cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}

inline std::vector<double> rounded_values(const std::vector<float>& x) {
  std::vector<double> out;
  for (const float v : x) out.push_back(rounded(static_cast<double>(v)));
  return out;
}
inline std::vector<double> rounded_weights(const HostMatrix& m, int n_rows, int n_cols) {
  std::vector<double> w;
  for (int r = 0; r < n_rows; ++r)
    for (int c = 0; c < n_cols; ++c) w.push_back(rounded(m.at(r, c)));
  return w;
}

// Rounded; what lies between a row's end and the next is NaN.
inline DeviceArray<Bf16> on_device(const std::vector<float>& x, int n_rows, int n_cols) {
  std::vector<Bf16> out(area(n_rows, bf16_stride(n_cols)), kBf16Nan);
  for (int r = 0; r < n_rows; ++r)
    std::transform(x.begin() + static_cast<std::ptrdiff_t>(area(r, n_cols)),
                   x.begin() + static_cast<std::ptrdiff_t>(area(r + 1, n_cols)),
                   out.begin() + static_cast<std::ptrdiff_t>(area(r, bf16_stride(n_cols))),
                   bf16_bits);
  return DeviceArray<Bf16>(out);
}

// Tensor cores add 16 products and the sum so far at once, in no known order, and cut off what is
// below 2^-23 of the largest: 17 such errors for 16 columns, so at most (n_cols + 16) · 2^-22 of
// the sizes with room for the last roundings. Operands are rounded before: exactly as here.
inline double sum_error(int n_cols, double sum_abs) { return (n_cols + 16) * 0x1p-22 * sum_abs; }

// silu(gate x) · (up x) of n columns, and how far a kernel's may be off, before it is rounded.
struct Hidden {
  double value, error;
};
inline Hidden hidden_of(const double* gate, const double* up, const double* x, int n) {
  double g = 0, u = 0, g_size = 0, u_size = 0;
  for (int c = 0; c < n; ++c) {
    g += gate[c] * x[c], u += up[c] * x[c];
    g_size += std::abs(gate[c] * x[c]), u_size += std::abs(up[c] * x[c]);
  }
  const double s = g / (1 + std::exp(-g));
  // silu is nowhere steeper than 1.1; its parts and the product are eight float32 roundings.
  const double s_error = 1.1 * sum_error(n, g_size), u_error = sum_error(n, u_size),
               u_most = std::abs(u) + u_error;
  return {s * u, s_error * u_most + std::abs(s) * u_error +
                     8 * 0x1p-24 * (std::abs(s) + s_error) * u_most};
}

// Once it is rounded to bfloat16, too.
inline double bf16_error(const Hidden& h) {
  return h.error + 0x1p-8 * (std::abs(h.value) + h.error);
}

// Values 1 to 1.875 in steps of 1/8, scales 1, 2 and 4: their sums are exact in float32.
inline HostMatrix fp8_eighths(int rows, int cols, int group, Random& random) {
  HostMatrix m = fp8(rows, cols, group, random);
  for (std::byte& b : m.values) b = static_cast<std::byte>(0x38 + random.below(8));
  std::vector<float> scales(m.scales.size() / sizeof(float));
  for (float& v : scales) v = static_cast<float>(1 << random.below(3));
  m.scales = bytes_of(scales);
  m.scaled.values = m.values.data();
  m.scaled.scales = m.scales.data();
  return m;
}

// A layer's experts, and what a token's chosen ones make of it in double precision of rounded
// operands.
struct ExpertLayer {
  std::vector<HostMatrix> host;  // (n_experts, 3)
  int hidden, width, top_k;
  std::vector<int> expert;
  std::vector<float> weight, x, shared, residual;

  int n_experts() const { return static_cast<int>(host.size()) / 3; }
  int n_tokens() const { return static_cast<int>(expert.size()) / top_k; }
};

inline std::vector<float> run_experts(const ExpertLayer& l) {
  DeviceWeights memory;
  std::vector<DeviceMatrix> experts;
  for (const HostMatrix& m : l.host) experts.push_back(m.upload(memory));
  const DeviceArray<DeviceMatrix> d_experts(experts);
  const DeviceArray<int> expert(l.expert);
  const DeviceArray<float> weight(l.weight), shared(l.shared), residual(l.residual);
  const auto x = on_device(l.x, l.n_tokens(), l.hidden);
  const std::size_t n_slots = l.expert.size();
  const DeviceArray<int> order(std::vector<int>(n_slots, -1)),
      first(std::vector<int>(static_cast<std::size_t>(l.n_experts() + 1), -1));
  const DeviceArray<Bf16> h(
      std::vector<Bf16>(n_slots * static_cast<std::size_t>(bf16_stride(l.width)), kBf16Nan));
  const auto y = poisoned(n_slots * static_cast<std::size_t>(l.hidden));
  moe_gemm_cuda({.experts = d_experts.data(),
                 .n_experts = l.n_experts(),
                 .all_copied = std::all_of(experts.begin(), experts.end(), is_copied),
                 .expert = expert.data(),
                 .weight = weight.data(),
                 .n_tokens = l.n_tokens(),
                 .top_k = l.top_k,
                 .hidden = l.hidden,
                 .width = l.width,
                 .x = x.data(),
                 .order = order.data(),
                 .first = first.data(),
                 .h = h.data(),
                 .y = y.data(),
                 .shared = shared.data(),
                 .residual = residual.data()},
                nullptr);
  return residual.host();
}

inline void expect_experts(const ExpertLayer& l, bool exact, const char* what) {
  const std::vector<float> out = run_experts(l);
  std::map<int, std::vector<double>> weights;
  for (const int e : std::set<int>(l.expert.begin(), l.expert.end()))
    for (int p = 0; p < 3; ++p)
      weights[3 * e + p] = rounded_weights(l.host[static_cast<std::size_t>(3 * e + p)],
                                           p < 2 ? l.width : l.hidden, p < 2 ? l.hidden : l.width);
  const std::vector<double> x = rounded_values(l.x);
  double worst = 0;
  for (int t = 0; t < l.n_tokens(); ++t) {
    std::vector<Hidden> hidden;  // (top_k, width)
    for (int k = 0; k < l.top_k; ++k) {
      const int e = l.expert[static_cast<std::size_t>(t * l.top_k + k)];
      for (int i = 0; i < l.width; ++i) {
        const std::size_t row = area(i, l.hidden);
        const Hidden h = hidden_of(weights[3 * e].data() + row, weights[3 * e + 1].data() + row,
                                   x.data() + area(t, l.hidden), l.hidden);
        hidden.push_back(exact ? Hidden{rounded(h.value), 0} : Hidden{h.value, bf16_error(h)});
      }
    }
    for (int r = 0; r < l.hidden; ++r) {
      const std::size_t at = area(t, l.hidden) + static_cast<std::size_t>(r);
      double sum = static_cast<double>(l.residual[at]) + static_cast<double>(l.shared[at]);
      double size = std::abs(static_cast<double>(l.residual[at])) +
                    std::abs(static_cast<double>(l.shared[at])),
             error = 0;
      for (int k = 0; k < l.top_k; ++k) {
        const auto slot = static_cast<std::size_t>(t * l.top_k + k);
        const double* down = weights[3 * l.expert[slot] + 2].data() + area(r, l.width);
        const auto weight = static_cast<double>(l.weight[slot]);
        for (int i = 0; i < l.width; ++i) {
          const Hidden& h = hidden[area(k, l.width) + static_cast<std::size_t>(i)];
          const double d = weight * down[i];
          sum += d * h.value;
          size += std::abs(d * h.value);
          error += std::abs(d) * h.error;
        }
      }
      const double bound =
          exact ? 0 : error + sum_error(l.width, size + error) + (l.top_k + 3) * 0x1p-24 * size;
      const double delta = std::abs(static_cast<double>(out[at]) - sum);
      ASSERT_LE(delta, bound) << what << ": token " << t << ", " << r;
      if (bound > 0) worst = std::max(worst, delta / bound);
    }
  }
  std::printf("%-24s worst error %.2g of its bound\n", what, worst);
}

// Tokens choose among the first n_chosen experts.
inline ExpertLayer expert_layer(int hidden, int width, int n_chosen, int top_k, int n_tokens,
                                Random& random) {
  ExpertLayer l{.host = {}, .hidden = hidden, .width = width, .top_k = top_k};
  for (int t = 0; t < n_tokens; ++t) {
    std::set<int> chosen;
    while (static_cast<int>(chosen.size()) < top_k) chosen.insert(random.below(n_chosen));
    l.expert.insert(l.expert.end(), chosen.begin(), chosen.end());
  }
  l.weight = random.floats(l.expert.size());
  l.x = random.floats(area(n_tokens, hidden));
  l.shared = random.floats(area(n_tokens, hidden));
  l.residual = random.floats(area(n_tokens, hidden));
  return l;
}

using MakeMatrix = HostMatrix (*)(int rows, int cols, Random& random);
inline void add_experts(ExpertLayer& l, int n, const std::vector<MakeMatrix>& kinds,
                        Random& random) {
  std::size_t kind = 0;
  for (int e = 0; e < n; ++e)
    for (int p = 0; p < 3; ++p)
      l.host.push_back(kinds[kind++ % kinds.size()](p < 2 ? l.width : l.hidden,
                                                    p < 2 ? l.hidden : l.width, random));
}
inline HostMatrix a_bf16(int rows, int cols, Random& r) {
  return dense(WeightType::kBf16, rows, cols, false, r);
}
inline HostMatrix a_vq8(int rows, int cols, Random& r) {
  return vq(8, 256, rows, cols, 64, false, r);
}
inline HostMatrix a_vq4(int rows, int cols, Random& r) {
  return vq(4, 4096, rows, cols, 64, false, r);
}
inline HostMatrix a_gptq(int rows, int cols, Random& r) {
  return gptq(4, rows, cols, 32, false, r);
}

}  // namespace assay::kernels
