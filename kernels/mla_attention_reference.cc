#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/dot_reference.h"
#include "kernels/elementary.h"
#include "kernels/mla_attention.h"

namespace assay::kernels {

void mla_attention_reference(const MlaAttentionArgs& a) {
  const int row = a.kv_lora + a.rope;
  const auto key = [&](int j) {
    return a.kv + static_cast<std::ptrdiff_t>(a.keys != nullptr ? a.keys[j] : j) * row;
  };
  std::vector<double> probability(static_cast<std::size_t>(a.n_keys));
  std::vector<double> sum_of(static_cast<std::size_t>(a.kv_lora));
  for (int h = 0; h < a.n_heads; ++h) {
    const float* q = a.q + static_cast<std::ptrdiff_t>(h) * row;
    double largest = -std::numeric_limits<double>::infinity();
    for (int j = 0; j < a.n_keys; ++j) {
      probability[j] = dot_f64(q, key(j), row) * static_cast<double>(a.scale);
      largest = std::max(largest, probability[j]);
    }
    double sum = 0;
    for (int j = 0; j < a.n_keys; ++j) {
      probability[j] = exp_f64(probability[j] - largest);
      sum += probability[j];
    }
    std::fill(sum_of.begin(), sum_of.end(), 0.0);
    for (int j = 0; j < a.n_keys; ++j) {
      const float* latent = key(j);
      const double p = probability[j];
      for (int i = 0; i < a.kv_lora; ++i) sum_of[i] += p * static_cast<double>(latent[i]);
    }
    for (int i = 0; i < a.kv_lora; ++i)
      a.out[static_cast<std::ptrdiff_t>(h) * a.kv_lora + i] = static_cast<float>(sum_of[i] / sum);
  }
}

}  // namespace assay::kernels
