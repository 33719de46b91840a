// Generation: a prompt in, a completion out, many at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/draw_check.h"
#include "engine/sampler.h"

namespace assay::engine {

class Engine;
class Sequence;

enum class FinishReason {
  kStop,            // a stop token was produced (it is the last id)
  kLength,          // max_tokens reached
  kThinkingBudget,  // max_thinking_tokens reached before </think>, and force_close is off
  kContext,         // the model's positions are used up
  kNonFinite,       // NaN or Inf in the logits: nothing after it means anything
};
std::string_view name_of(
    FinishReason reason);  // "stop", "length", "thinking_budget", "context", "non_finite"

struct GenerateRequest {
  std::vector<int> prompt;
  SamplingParams sampling;
  std::uint64_t seed = 0, stream = 0;
  int max_tokens = 2048;        // whole reply, thinking included
  int max_thinking_tokens = 0;  // 0: only max_tokens limits thinking
  // At the thinking budget </think> is written in the model's place, and it goes on from there:
  // tells "cannot stop" from "does not know" (budget forcing, Muennighoff et al. 2025, s1).
  bool force_close = false;
  std::vector<int> stop_ids;  // empty: the model's own (generation_config.json)
  int n_top = 0;              // top-k logprobs kept per step, at most kernels::kMaxTop
  // A sequence of the same engine that has read the prompt's first tokens, at least one less than
  // all: it is forked instead of reading them again. The bits of the reply do not depend on it;
  // in bfloat16 (EngineInfo::arithmetic) only if those tokens are whole prefill chunks.
  std::shared_ptr<const Sequence> prefix;
};

struct GeneratedToken {
  int id;
  float logprob;        // of this token, also where it was forced
  float p_think_close;  // probability of </think> at this step
  float p_eos;          // summed probability of the stop ids at this step
  std::vector<std::pair<int, float>> top;
  bool forced = false;  // </think>, written at the thinking budget
};

struct Completion {
  std::vector<GeneratedToken> tokens;  // the stop token included
  FinishReason finish = FinishReason::kStop;
  int n_prompt_tokens = 0;
  int n_thinking_tokens = 0;     // before </think>; all of them if it never came
  bool thinking_closed = false;  // </think> was produced, or the prompt had already closed it
  DrawFigures draws;             // what the drawn tokens say of the generator
  double prefill_s = 0;          // until the first token; includes waiting for others in the batch
  double decode_s = 0;           // first token until the last
  std::vector<int> ids() const;
};

// Runs up to `max_batch` requests together (continuous batching): each step advances every active
// request by a prompt chunk or a token. A request begins once the engine has room for its cache, of
// prompt and max_tokens; others wait for those that are active. Bits of a completion do not depend
// on what shares its batch. One Generator per Engine.
class Generator {
 public:
  Generator(Engine& engine, int max_batch);
  ~Generator();

  // Queues a request. A prompt that is empty, has an id outside the vocabulary or leaves no room in
  // the context, or one that the engine's caches cannot hold beside its prefix, is an error
  // (expected against got), and nothing is queued.
  Result<void> submit(std::uint64_t ticket, GenerateRequest request);
  bool idle() const;         // nothing queued, nothing active
  int n_unfinished() const;  // queued and active

  struct Finished {
    std::uint64_t ticket;
    Completion completion;
  };
  // One step of the engine; returns what finished in it. `on_token` sees every token as it is
  // produced.
  std::vector<Finished> advance(
      const std::function<void(std::uint64_t, const GeneratedToken&)>& on_token = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One request, alone.
Result<Completion> generate(Engine& engine, GenerateRequest request,
                            const std::function<void(const GeneratedToken&)>& on_token = {});

}  // namespace assay::engine
