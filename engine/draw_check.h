// Does the generator draw what it says? For every token that was drawn: how much likelier was it
// under faults that a generator can have than under the distribution that was asked for
// (docs/design/sampler-check.md). Starts from where the token lies in the distribution, which is
// found apart from the sampler (kernels::draw_place).
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "engine/sampler.h"

namespace assay::engine {

// Each is a distribution of its own over the same tokens, so of an honest draw the ratio of its
// probability to the one asked for has expectation 1. With u the generator's uniform number, and
// tokens in descending order of probability:
// temperature_x…: another temperature; likely_a: u has density 1 − a (2u − 1), unlikely_a the
// opposite; edges_a: 1 + a (6u² − 6u + 1), middle_a the opposite; repeating_a: 1 + a (2u − 1)(2v −
// 1) after v, alternating_a the opposite; stuck_a: with probability a u is what it was, as far as
// the tokens since it last moved tell. A token stands for its interval of u.
inline constexpr std::array<std::string_view, 21> kDrawAlternatives = {
    "temperature_x0.25", "temperature_x0.5", "temperature_x0.8", "temperature_x1.33",
    "temperature_x2",    "likely_0.9",       "likely_0.3",       "likely_0.1",
    "unlikely_0.9",      "unlikely_0.3",     "unlikely_0.1",     "edges_0.9",
    "edges_0.3",         "middle_0.9",       "middle_0.3",       "repeating_0.9",
    "repeating_0.3",     "alternating_0.9",  "alternating_0.3",  "stuck_0.9",
    "stuck_0.3"};

// Over the tokens of one reply.
struct DrawFigures {
  int n_drawn = 0;
  int n_impossible = 0;  // tokens that what was asked for can never give: counted, not in the sums
  std::array<double, kDrawAlternatives.size()> log_ratio{};  // Σ log(p alternative / p asked for)
};

class DrawCheck {
 public:
  explicit DrawCheck(const SamplingParams& params) : params_(params) {}

  // A token that was drawn.
  void see(const kernels::DrawPlace& token);
  // The logits of a step, what was in the context before it, and the token that the sampler took.
  // Greedy requests draw nothing, and nothing is counted.
  void see(std::span<const float> logits, std::span<const int> history, int id);
  const DrawFigures& figures() const { return figures_; }

 private:
  SamplingParams params_;
  DrawFigures figures_;
  double before_ = 0;          // 2u − 1 of the token before, on average over its interval
  double low_ = 0, high_ = 1;  // where u is, if it has not moved
};

}  // namespace assay::engine
