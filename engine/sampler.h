// From one row of logits to one token. Pure: the same logits, history, parameters and (seed,
// stream, position) give the same token on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace assay::engine {

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

struct Sampled {
  int id = -1;
  float logprob = 0;  // of id under the model's own distribution (temperature 1, unfiltered)
  std::vector<std::pair<int, float>>
      top;  // the n_top most likely tokens and their logprobs, likewise
  std::vector<float> watched_probability;  // of each watched id, likewise
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

// log Σ exp(logits) of finite logits, in double.
double logsumexp(std::span<const float> logits);

}  // namespace assay::engine
