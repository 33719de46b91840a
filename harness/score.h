// A reply's tokens → thinking and answer → extraction → outcome. Pure.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "harness/extract.h"
#include "harness/needle_score.h"
#include "harness/outcome.h"
#include "harness/suite.h"
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

// What was asked, as far as judging the reply needs it.
struct Question {
  Scoring scoring = Scoring::kNumber;
  std::string expected;            // as Case::answer
  std::string language;            // of the question, and so of the answer
  std::string text;                // the question itself: its script is the answer's
  std::string reasoning_language;  // that the thinking must be in; empty: not looked at
  NeedleTruth truth;               // of needles, with the tables that made them
  const NeedleTables* tables = nullptr;
};

struct Scored {
  std::string thinking, answer;  // text
  int n_thinking_tokens = 0, n_stray_tags = 0;
  // What decided: span in `answer`. Only where the answer is finished.
  std::optional<Extraction> extraction;
  Outcome outcome;
  // "ja", "en", "zh" (simplified), "zh-Hant", "other"; empty: cannot be told.
  std::string thinking_language, answer_language;
  std::optional<bool> language_right;  // of both, where anything can be told
  bool reached = false;   // not correct, though the right answer stands in the thinking
  int n_hesitations = 0;  // in the thinking
};

using Decode = std::function<std::string(std::span<const int>)>;

// Only a finished final answer is judged: a reply that never closed its thinking, or was cut inside
// its answer, has no answer that could be wrong.
Scored score_reply(std::span<const int> prompt, const Reply& reply, const TokenRoles& roles,
                   const Decode& decode, const Question& question);

}  // namespace assay::harness
