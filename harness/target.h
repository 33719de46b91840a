// Whoever answers: the embedded engine today, a server later, a fake one in tests. The runner knows
// only this.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "harness/suite.h"

namespace assay::harness {

// What a case becomes before it is asked: the exact token ids go into the record, because a missing
// chat prefix has cost people days.
struct Prompt {
  std::string text;
  std::vector<int> ids;
};

struct Request {
  std::vector<int> prompt;
  Sampling sampling;
  std::uint64_t seed = 0, stream = 0;
  int max_tokens = 0, max_thinking_tokens = 0;
  bool force_close = false;  // at max_thinking_tokens </think> is written, and the model goes on
  // The same question in other words, put only if `should_reask` says so of the reply; begins with
  // the same tokens, which are read once. Empty: none.
  std::vector<int> reask_prompt;
  std::function<bool(const struct Reply&)> should_reask;
};

struct TopToken {
  int id = -1;  // -1: none
  float logprob = 0;
  bool operator==(const TopToken&) const = default;
};

// What the model thought of each of its reply's tokens; servers may not tell.
struct StepFigures {
  static constexpr int kTop = 4;
  float logprob = 0;                    // of the token that was taken
  float p_think_close = 0;              // of </think> instead
  float p_eos = 0;                      // of any stop token instead
  std::array<TopToken, kTop> top = {};  // the most likely ones, largest first
  bool operator==(const StepFigures&) const = default;
};

// What the drawn tokens of a reply say of the generator (harness/sampler_check.h); of a greedy
// reply nothing was drawn. Targets that cannot see the distributions do not tell.
struct DrawFigures {
  int n_drawn = 0, n_impossible = 0;
  std::map<std::string, double> log_ratio;  // by alternative
  bool operator==(const DrawFigures&) const = default;
};

struct Reply {
  std::vector<int> ids;  // the stop token included
  std::string finish;    // "stop", "length", "thinking_budget", "context", "non_finite"
  double prefill_s = 0, decode_s = 0;
  bool forced_close = false;       // </think> was written at the budget
  std::vector<StepFigures> steps;  // one per id, or none
  std::optional<DrawFigures> draws;
  std::vector<Reply> reasked;  // what came of a re-ask: none or one
};

// Ids that the scorer must recognise. Thinking is split by token, never by searching text for
// "</think>": an answer may speak about the tag.
struct TokenRoles {
  std::optional<int> think_open, think_close;
  std::vector<int> stop;
};

// A prompt with the reply that is given to it.
struct GivenReply {
  std::vector<int> prompt, ids;
};

class Target {
 public:
  virtual ~Target() = default;

  virtual Json describe() const = 0;  // provenance: model, backend, kernel, threads …
  // What decides the answers (fingerprints, backend, attention): a resumed run must find it
  // unchanged.
  virtual Json identity() const = 0;
  virtual int max_positions() const = 0;  // prompt and reply together
  virtual const TokenRoles& roles() const = 0;

  virtual Result<Prompt> render(const OrderedJson& messages, bool enable_thinking) const = 0;
  // Ids of a text that stands inside a message, special tokens included if it spells them.
  virtual Result<std::vector<int>> encode(std::string_view text) const = 0;
  // Text of reply ids without special tokens; what is not valid UTF-8 is replaced.
  virtual std::string decode(std::span<const int> ids) const = 0;

  // Answers every request, many at once. Requests that follow each other and begin with the same
  // tokens may share the reading of them. `on_done` gets each request's index as it finishes, in
  // any order, one call at a time; an Error says why that request could not be answered. When
  // `stop` is requested, returns soon, and what had not finished is not reported. `on_token` may be
  // called from several threads. Returns an error where nothing could be asked at all.
  using OnDone = std::function<void(std::size_t index, Result<Reply> reply)>;
  virtual Result<void> complete(std::span<const Request> requests, const OnDone& on_done,
                                const std::function<void()>& on_token, std::stop_token stop) = 0;

  // What the model thinks at every token of a given reply (teacher forcing): one StepFigures for
  // each of its ids. `on_done` and `stop` as above. Who cannot says so for each.
  using OnScored = std::function<void(std::size_t index, Result<std::vector<StepFigures>> steps)>;
  virtual Result<void> score(std::span<const GivenReply> replies, const OnScored& on_done,
                             std::stop_token stop);
};

}  // namespace assay::harness
