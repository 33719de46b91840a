#include "engine/quantize/token_focus.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "engine/quantize/expert_stats.h"

namespace assay::engine {
namespace {

constexpr int kRowsPerStep = 512;  // whose logits exist at a time

float uncertainty_of(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0, square = 0;
  for (const float v : logits) {
    const double e = std::exp(static_cast<double>(v - top));
    sum += e;
    square += e * e;
  }
  return static_cast<float>(1 - square / (sum * sum));
}

}  // namespace

Result<std::vector<float>> token_uncertainty(const ModelConfig& config, const ModelWeights& weights,
                                             const Rows& residual,
                                             const std::vector<int>& text_lengths,
                                             const std::vector<int>& first_reply, ThreadPool& pool,
                                             Stop* stop) {
  CHECK(text_lengths.size() == first_reply.size());
  std::vector<int> rows;  // that predict a reply
  int begin = 0;
  for (std::size_t t = 0; t < text_lengths.size(); ++t) {
    for (int i = std::max(0, first_reply[t] - 1); i < text_lengths[t]; ++i)
      rows.push_back(begin + i);
    begin += text_lengths[t];
  }
  std::vector<float> out(static_cast<std::size_t>(begin), 0.0f);
  const RowProduct head(weights.lm_head, pool, stop);
  const auto hidden = static_cast<std::ptrdiff_t>(config.hidden);
  const auto vocab = static_cast<std::size_t>(config.vocab);
  for (std::size_t first = 0; first < rows.size(); first += kRowsPerStep) {
    ASSAY_TRY_VOID(go_on(stop));
    const std::size_t n = std::min<std::size_t>(kRowsPerStep, rows.size() - first);
    Rows x;
    for (std::size_t i = 0; i < n; ++i) {
      const auto row = residual.begin() + rows[first + i] * hidden;
      x.insert(x.end(), row, row + hidden);
    }
    const Rows logits =
        head(rms_normed(x, config.hidden, config.hidden, weights.final_norm, config.rms_eps, stop));
    ASSAY_TRY_VOID(go_on(stop));
    pool.parallel_for(static_cast<int>(n), [&](int i) {
      const auto row = static_cast<std::size_t>(i);
      out[static_cast<std::size_t>(rows[first + row])] =
          uncertainty_of(std::span(logits).subspan(row * vocab, vocab));
    });
  }
  return out;
}

std::vector<float> token_weights(const std::vector<float>& uncertainty, double focus) {
  const double mean = std::accumulate(uncertainty.begin(), uncertainty.end(), 0.0) /
                      static_cast<double>(std::max<std::size_t>(1, uncertainty.size()));
  std::vector<float> out(uncertainty.size(), 1.0f);
  if (!(mean > 0)) return out;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>(1 - focus + focus * static_cast<double>(uncertainty[i]) / mean);
  return out;
}

}  // namespace assay::engine
