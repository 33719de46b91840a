// A reply's tokens → thinking and answer → extraction → outcome. Pure.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "harness/extract.h"
#include "harness/outcome.h"
#include "harness/target.h"

namespace assay::harness {

// Where a reply's thinking ends, by token id. The first </think> counts; what comes after it is the
// answer, even if the model then thinks again (such stray tags are counted).
struct Split {
  std::span<const int> thinking, answer;  // without the tag and the stop token
  bool closed = false;   // </think> came, or the prompt had closed (or never opened) thinking
  int n_stray_tags = 0;  // think tags inside the answer
};
Split split_reply(std::span<const int> prompt, std::span<const int> reply, const TokenRoles& roles);

struct Scored {
  std::string thinking, answer;  // text
  int n_thinking_tokens = 0, n_stray_tags = 0;
  std::optional<Extraction> extraction;  // span in `answer`; only where the answer is finished
  Outcome outcome;
};

using Decode = std::function<std::string(std::span<const int>)>;

// `expected` is a canonical number. Only a finished final answer is judged: a reply that never
// closed its thinking, or was cut inside its answer, has no answer that could be wrong.
Scored score_reply(std::span<const int> prompt, const Reply& reply, const TokenRoles& roles,
                   const Decode& decode, std::string_view expected, std::string_view language);

}  // namespace assay::harness
