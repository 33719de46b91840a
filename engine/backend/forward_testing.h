// For tests of backends: runs a model over prompts as the engine does, and compares what comes out.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "engine/backend/backend.h"
#include "engine/forward.h"

namespace assay::engine {

using Model = std::shared_ptr<const BackendModel>;

inline std::vector<int> prompt(int n, int seed, int vocab) {
  std::vector<int> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int>(uniform_at(99, seed, i) * vocab));
  return tokens;
}

// The logits of every token of each prompt, as the engine computes them: every step takes the next
// `chunk` tokens of every prompt that is not done.
template <class M>
std::vector<std::vector<float>> run(const M& m, const Model& model, int n_threads,
                                    const std::vector<std::vector<int>>& prompts, int chunk,
                                    bool sparse, Observer* observer = nullptr,
                                    const StepLimits& limits = {}) {
  const auto backend = *model->new_executor(n_threads, limits);
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<std::vector<float>> logits(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i)
    caches.push_back(backend->new_cache(static_cast<int>(prompts[i].size())));
  while (true) {
    StepRows rows;
    std::vector<int> all, owner;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const int done = caches[i]->n_tokens();
      const int n = std::min(chunk, static_cast<int>(prompts[i].size()) - done);
      if (n == 0) continue;
      rows.segments.push_back({caches[i].get(), rows.n_rows(), n, done});
      for (int k = 0; k < n; ++k) {
        all.push_back(rows.n_rows());
        owner.push_back(static_cast<int>(i));
        rows.tokens.push_back(
            prompts[i][static_cast<std::size_t>(done) + static_cast<std::size_t>(k)]);
      }
    }
    if (all.empty()) return logits;
    const auto vocab = static_cast<std::size_t>(m.config.vocab);
    std::vector<float> out(all.size() * vocab);
    forward(*backend, m.config, rows, sparse, {.logit_rows = all, .logits = out}, observer);
    for (std::size_t r = 0; r < all.size(); ++r)
      logits[owner[r]].insert(logits[owner[r]].end(), out.begin() + r * vocab,
                              out.begin() + (r + 1) * vocab);
  }
}

// The last token's logits, sparse, after the cache has read `tokens` too.
inline std::vector<float> read_on(Backend& backend, const ModelConfig& config, KvCache& cache,
                                  std::span<const int> tokens) {
  StepRows rows;
  rows.tokens.assign(tokens.begin(), tokens.end());
  rows.segments = {{&cache, 0, rows.n_rows(), cache.n_tokens()}};
  std::vector<float> out(static_cast<std::size_t>(config.vocab));
  const int last[] = {rows.n_rows() - 1};
  forward(backend, config, rows, true, {.logit_rows = last, .logits = out});
  return out;
}

// The first value whose bits differ, or "".
inline std::string first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return fmt::format("{} values, not {}", b.size(), a.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]))
      return fmt::format("value {} of {}: {} and {}", i, a.size(), a[i], b[i]);
  return "";
}

// The smallest margin of any choice of the run: a run whose choices were all clear cannot fork.
struct Margins final : Observer {
  void on_tensor(const std::string&, const Backend&, Act) override {}
  void on_selection(int, const Backend& b) override { take(b.read_selection().margin); }
  void on_routing(int, const Backend& b) override { take(b.read_routing().margin); }
  void take(const std::vector<float>& margins) {
    for (const float m : margins) smallest = std::min(smallest, m);
  }
  float smallest = std::numeric_limits<float>::infinity();
};

// A projection's error is at most (n_cols + 1) 2^-24 of its sum of absolute products, which for
// these random rows is a few times its result; here n_cols <= 78, so 1e-5 of a row's size, and
// seldom half of that. Five layers chain some eight operations each: 4e-4 of the largest logit. (A
// forgotten term or a wrong position is off by a tenth and more.)
inline constexpr double kForwardTolerance = 4e-4;

// "" or what is too far off: the first logit that is not finite, else the worst.
inline std::string worst_beyond(const std::vector<float>& expected, const std::vector<float>& got,
                                int vocab, double tolerance = kForwardTolerance) {
  if (expected.size() != got.size())
    return fmt::format("{} values, not {}", got.size(), expected.size());
  const auto at = [&](std::size_t i) {
    return fmt::format("row {} token {}: expected {}, got {}", i / vocab, i % vocab, expected[i],
                       got[i]);
  };
  double largest = 0, worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(expected[i]) || !std::isfinite(got[i])) return at(i);
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    const double d = std::abs(static_cast<double>(expected[i]) - static_cast<double>(got[i]));
    if (d > worst) worst = d, where = i;
  }
  testing::Test::RecordProperty("worst", fmt::format("{:.3g} of {:.3g}", worst, largest));
  return worst > tolerance * largest ? at(where) : "";
}
inline void expect_close(const std::vector<float>& expected, const std::vector<float>& got,
                         int vocab) {
  EXPECT_EQ(worst_beyond(expected, got, vocab), "");
}

}  // namespace assay::engine
