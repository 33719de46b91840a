// From one row of logits to one token. Pure: the same logits, history, parameters and (seed,
// stream, position) give the same token on every machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace assay::kernels {

struct SamplingParams {
  double temperature = 0;         // 0: greedy
  double top_p = 1;               // 1: off
  int top_k = 0;                  // 0: off
  double min_p = 0;               // 0: off
  double repetition_penalty = 1;  // 1: off; over prompt and reply, as in transformers
};

struct SampleKey {
  std::uint64_t seed = 0;      // of the run
  std::uint64_t stream = 0;    // of the case (a hash of its id)
  std::uint64_t position = 0;  // of the token
};

// What a reply's step asks for.
struct SampleRequest {
  SamplingParams params;
  SampleKey key;
  std::span<const int> history;  // prompt and reply so far: what the repetition penalty is for
  int n_top = 0;                 // at most kMaxTop
  std::span<const int> watched;  // ids in the vocabulary, at most kMaxWatched
};
inline constexpr int kMaxTop = 64, kMaxWatched = 16;  // more would need other memory on a GPU

inline constexpr std::array<double, 5> kDrawPowers = {4, 2, 1.25, 0.75, 0.5};

// Where a drawn token lies in the distribution that was asked for. A weight is a probability
// relative to the most likely token's; sums are over the tokens that top-k, top-p and min-p keep.
struct DrawPlace {
  bool is_kept = false;  // the rest means something only then
  bool at_edge = false;  // not kept, but so near a filter's limit that rounding may decide
  double exponent = 0;   // log of the token's weight
  double weight = 0;
  double above = 0;                                   // Σ weight of likelier tokens
  double total = 0;                                   // Σ weight
  std::array<double, kDrawPowers.size()> of_power{};  // Σ weight^p
};

struct Sampled {
  int id = -1;
  float logprob = 0;  // of id under the model's own distribution (temperature 1, unfiltered)
  std::vector<std::pair<int, float>>
      top;  // the n_top most likely tokens and their logprobs, likewise
  std::vector<float> watched_probability;  // of each watched id, likewise
  std::optional<DrawPlace> place;          // of a SampleRequest that draws
};

// Greedy takes the lowest id among equal largest logits. A logit that is NaN or infinite gives id =
// -1. `u` in [0, 1) chooses the token: the one whose interval it falls into, with tokens in
// descending order of probability.
Sampled sample_at(std::span<const float> logits, std::span<const int> history,
                  const SamplingParams& params, double u, int n_top = 0,
                  std::span<const int> watched = {});
// With the uniform number of `key` as u.
Sampled sample(std::span<const float> logits, std::span<const int> history,
               const SamplingParams& params, const SampleKey& key, int n_top = 0,
               std::span<const int> watched = {});

// All that a request asks for.
Sampled sample(std::span<const float> logits, const SampleRequest& request);

// From the logits and the request alone, never from the sampler's own numbers, and written apart
// from it on purpose: it does not inherit the sampler's mistakes.
DrawPlace draw_place(std::span<const float> logits, std::span<const int> history,
                     const SamplingParams& params, int id);
// Two sums of the same probabilities may round differently; where a filter's limit falls on the
// very edge of a token (so much of the whole), what was left out is not held against the sampler.
inline constexpr double kDrawEdge = 1e-9;
// Tokens less likely than e^-60 times the first are together nothing that a double notices.
inline constexpr double kDrawFarBelow = 60;

// The repetition penalty's tokens: bit i % 32 of word i / 32 is whether the history has token i.
// Ids outside the vocabulary are no one's.
inline std::size_t n_seen_words(int vocab) { return (static_cast<std::size_t>(vocab) + 31) / 32; }
void mark_seen(std::span<const int> history, int vocab, std::uint32_t* seen);

// log Σ exp(logits) of finite logits, in double.
double logsumexp(std::span<const float> logits);

}  // namespace assay::kernels
