// How far a candidate's next-token distributions are from a base's, position by position and
// summed up. Pure: values in, values out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace assay::harness {

// What is kept of a base's distribution at one position: its most likely tokens exactly, the rest
// as one mass. kTop tokens of 7 bytes and 11 bytes more: 179 bytes on disk.
struct BasePosition {
  static constexpr int kTop = 24;
  int next = -1;                           // the token that the text goes on with
  float next_logprob = 0;                  // of it
  float tail = 0;                          // probability of all tokens not in top
  std::vector<std::pair<int, float>> top;  // (id, logprob), largest first, lower id first if equal
};
BasePosition summarise_base(std::span<const float> logits, int next);

// One position of base and candidate.
struct PositionDivergence {
  double kld = 0;      // KL(base ‖ candidate) in nats, over the whole vocabulary …
  double kld_top = 0;  // … and over base's top tokens and one class for the rest, which is never
                       // more (data processing inequality)
  double delta_p = 0;  // p_candidate(next) − p_base(next)
  double nll_base = 0, nll_candidate = 0;  // −log p(next)
  bool same_top1 = false;
};
PositionDivergence diverge(std::span<const float> base_logits,
                           std::span<const float> candidate_logits, int next);
// From a captured base: kld is kld_top then.
PositionDivergence diverge(const BasePosition& base, std::span<const float> candidate_logits);

enum class TextPart { kThinking, kAnswer };
struct ScoredPosition {
  int text;  // cluster: positions of one text are not independent
  std::string lang;
  TextPart part;
  int token;  // of the text: the one that is predicted here
  PositionDivergence d;
};

struct Estimate {
  double value = 0, error = 0;  // error: standard error by the bootstrap over texts
};
struct DivergenceSummary {
  std::string lang;  // "all", or a language
  std::string part;  // "all", "thinking", "answer"
  int n_positions = 0, n_texts = 0;
  Estimate kld_mean, kld_median, kld_p90, kld_p95, kld_p99, kld_p999, kld_max;
  Estimate delta_p_mean, delta_p_rms, top1_agreement;
  Estimate perplexity_base, perplexity_candidate, perplexity_ratio;
  double coarsening = 0;  // mean of kld − kld_top: what a captured base cannot see
};
// Every language × part with positions, and the sums over each; all × all is first.
std::vector<DivergenceSummary> summarise(std::span<const ScoredPosition> positions,
                                         int n_resamples = 200);
Json to_json(const DivergenceSummary& s);

}  // namespace assay::harness
