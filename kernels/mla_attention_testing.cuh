// Problems of latent attention for tests on a GPU: rows at the last positions of one sequence, what
// the reference makes of them, and what the kernels do, however they are asked.
#pragma once

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda_testing.cuh"
#include "kernels/device_matrix_testing.cuh"
#include "kernels/mla_attention.h"
#include "kernels/mla_attention_cuda.h"

namespace assay::kernels {

inline float from_half(std::uint16_t bits) {
  __half h;
  std::memcpy(&h, &bits, 2);
  return __half2float(h);
}

struct AttentionShape {
  int kv_lora, rope, n_heads;
  int width() const { return kv_lora + rope; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(width())); }
};
// Rows at the last positions of one sequence.
struct AttentionProblem {
  AttentionProblem(const AttentionShape& shape, int n_rows, int n_keys, Random& random)
      : s(shape),
        rows(n_rows),
        last(n_keys - 1),
        q(random.floats(static_cast<std::size_t>(n_rows * s.n_heads * s.width()))),
        kv(random.floats(static_cast<std::size_t>(n_keys * s.width()))) {}

  std::vector<std::uint16_t> cache() const {
    const auto width = static_cast<std::size_t>(s.width());
    std::vector<std::uint16_t> out(2 * kv.size());
    for (std::size_t i = 0; i < kv.size(); ++i) {
      const std::size_t at = i / width * 2 * width + i % width;
      out[at] = to_half(kv[i]);
      out[at + width] = to_half(kv[i] - from_half(out[at]));
    }
    return out;
  }
  // (n_rows, n_heads, kv_lora); `chosen`: keys of every row, or none for all up to its position.
  std::vector<float> expected(const std::vector<int>& chosen) const {
    std::vector<float> out(static_cast<std::size_t>(rows * s.n_heads * s.kv_lora));
    for (int r = 0; r < rows; ++r)
      mla_attention_reference(
          {.q = &q[static_cast<std::size_t>(r * s.n_heads * s.width())],
           .kv = kv.data(),
           .keys = chosen.empty() ? nullptr : chosen.data(),
           .n_keys = chosen.empty() ? last - rows + 2 + r : static_cast<int>(chosen.size()),
           .n_heads = s.n_heads,
           .kv_lora = s.kv_lora,
           .rope = s.rope,
           .scale = s.scale(),
           .out = &out[static_cast<std::size_t>(r * s.n_heads * s.kv_lora)]});
    return out;
  }
  struct How {
    bool splits, runs, half;
  };
  std::vector<float> computed(const std::vector<int>& chosen, const How& how) const {
    return computed(chosen, how, DeviceArray<std::uint16_t>(cache()));
  }
  std::vector<float> computed(const std::vector<int>& chosen, const How& how,
                              const DeviceArray<std::uint16_t>& d_cache) const {
    const DeviceArray<float> dq(q);
    std::vector<int> positions, run, keys, n_keys;
    for (int r = 0; r < rows; ++r) {
      positions.push_back(last - rows + 1 + r);
      if (run.empty() || r - run.back() == mla_rows_of_run(s.n_heads) ||
          positions.back() % mla_run_limit(s.n_heads) == 0)
        run.push_back(r);
      keys.insert(keys.end(), chosen.begin(), chosen.end());
      n_keys.push_back(static_cast<int>(chosen.size()));
    }
    const int n_runs = how.runs ? static_cast<int>(run.size()) : rows;
    run.push_back(rows);
    const DeviceArray<std::uint16_t*> caches(
        std::vector<std::uint16_t*>(static_cast<std::size_t>(rows), d_cache.data()));
    const DeviceArray<int> d_position(positions), d_run(run), d_keys(keys), d_n_keys(n_keys);
    const auto parts = poisoned(
        std::max<std::size_t>(1, mla_parts(rows, 1, s.n_heads, s.kv_lora, s.rope, last + 1)));
    const auto out = poisoned(static_cast<std::size_t>(rows * s.n_heads * s.kv_lora));
    mla_attention_cuda({.q = dq.data(),
                        .cache = caches.data(),
                        .position = d_position.data(),
                        .keys = chosen.empty() ? nullptr : d_keys.data(),
                        .n_keys = d_n_keys.data(),
                        .keys_stride = static_cast<int>(chosen.size()),
                        .run = how.runs ? d_run.data() : nullptr,
                        .n_runs = n_runs,
                        .n_rows = rows,
                        .n_heads = s.n_heads,
                        .kv_lora = s.kv_lora,
                        .rope = s.rope,
                        .scale = s.scale(),
                        .max_keys = last + 1,
                        .half = how.half,
                        .parts = how.splits ? parts.data() : nullptr,
                        .out = out.data()},
                       nullptr);
    return out.host();
  }
  // Roundings of 2^-22 (halves: 2^-11) to a factor of a product, and 2^-24 to every sum, make an
  // error of a score; twice that much, relatively, of its weight; which with as much of the weight
  // itself is the error of a mean of latents.
  double bound(bool half) const {
    double score = 0, largest = 0;
    for (const float v : kv) largest = std::max(largest, std::abs(static_cast<double>(v)));
    for (std::size_t first = 0; first < q.size(); first += static_cast<std::size_t>(s.width())) {
      double sum = 0;
      for (int i = 0; i < s.width(); ++i)
        sum += std::abs(static_cast<double>(q[first + static_cast<std::size_t>(i)])) * largest;
      score = std::max(score, sum * static_cast<double>(s.scale()));
    }
    const double unit = half ? 0x1p-11 : 0x1p-22;
    const double delta = score * (3 * unit + (s.width() + 8) * 0x1p-24);
    return largest * (2 * delta + 4 * unit + (last + 16) * 0x1p-24);
  }
  AttentionShape s;
  int rows, last;
  std::vector<float> q, kv;
};

}  // namespace assay::kernels
