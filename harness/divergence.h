// How far a candidate's next-token distributions are from a base's, position by position and
// summed up. Pure: values in, values out.
#pragma once

#include <cstdint>
#include <optional>
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
  double kld_at_most = 0;       // kld, or what it can be at most where only kld_top is known
  double tail = 0;              // base's probability of all tokens not in its top
  bool is_lower_bound = false;  // kld is kld_top: the base is captured
  double delta_p = 0;           // p_candidate(next) − p_base(next)
  double nll_base = 0, nll_candidate = 0;  // −log p(next)
  bool same_top1 = false;
};
PositionDivergence diverge(std::span<const float> base_logits,
                           std::span<const float> candidate_logits, int next);
// From a captured base. The KLD lies between kld_top and kld_at_most = Σ_top p log(p/q) +
// tail · log(c / q_min): a token of the tail has at most the probability c of the last top token
// (and at most tail), and at least the candidate's smallest q_min, so its p log(p/q) is at most
// p log(c / q_min), and the p of the tail add up to tail. Up to the rounding of stored floats.
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
  double value = 0;
  // Standard error by the bootstrap over texts. None of one text, which says nothing of how texts
  // differ, and none of a maximum: resamples never exceed it, so their spread is not its error.
  std::optional<double> error;
};
struct DivergenceSummary {
  std::string lang;  // "all", or a language
  std::string part;  // "all", "thinking", "answer"
  int n_positions = 0, n_texts = 0;
  Estimate kld_mean, kld_median, kld_p90, kld_p95, kld_p99, kld_p999;
  Estimate kld_max;  // the largest of these positions: more of them can only raise it
  Estimate delta_p_mean, delta_p_rms, top1_agreement;
  Estimate perplexity_base, perplexity_candidate, perplexity_ratio;
  double tail_mass = 0;  // mean of the base's probability outside its top tokens
  // Mean of kld − kld_top, which a captured base cannot see. From a captured base it is unknown,
  // and the mean KLD is at most kld_mean_at_most instead.
  std::optional<double> coarsening, kld_mean_at_most;
};
// Every language × part with positions, and the sums over each; all × all is first.
std::vector<DivergenceSummary> summarise(std::span<const ScoredPosition> positions,
                                         int n_resamples = 200);
Json to_json(const DivergenceSummary& s);  // null: not known

}  // namespace assay::harness
