// What became of a reply, in three independent parts, and the one class that tables show.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace assay::harness {

enum class Termination {
  kClosed,   // thinking closed (or was off), an answer followed, and the model stopped by itself
  kNoClose,  // a limit was reached inside thinking
  kClosedEmpty,      // thinking closed, the model stopped, and no answer stands there
  kEosInThink,       // the model stopped inside thinking
  kTruncatedAnswer,  // a limit was reached inside the answer
  kError,            // the case could not be asked or answered
  kTimeout,          // the target gave up waiting (servers; the embedded engine has none)
};

// The first that holds of: one token, exact loop, near loop, drift.
enum class Degeneration {
  kNone,
  kLoopExact,        // the reply ends in exact copies of one block of 2 tokens or more
  kLoopNear,         // it ends in copies that differ in a counter or a few words
  kDegenerateToken,  // it ends in one token over and over
  kLanguageDrift,    // a sentence or more stands in another language than the answer should have
};

enum class Correctness {
  kCorrect,
  kWrong,
  kUnextractable,  // an answer stands there, but no rule finds a number in it
  kNotJudged,      // no finished answer, or a suite that judges none: never called wrong
};

struct Outcome {
  Termination termination = Termination::kClosed;
  Degeneration degeneration = Degeneration::kNone;
  Correctness correctness = Correctness::kNotJudged;
  int loop_start = -1, loop_period = 0;  // token index of the reply, where there is a loop
};

std::string_view name_of(Termination);
std::string_view name_of(Degeneration);
std::string_view name_of(Correctness);
std::optional<Termination> parse_termination(std::string_view);
std::optional<Degeneration> parse_degeneration(std::string_view);
std::optional<Correctness> parse_correctness(std::string_view);

// The single class, by this precedence: error, timeout; then what made the reply useless:
// degenerate_token, loop_exact, loop_near, no_close, eos_in_think, closed_empty, truncated_answer;
// then the judgement of a finished answer: correct, language_drift, wrong, unextractable, answered
// (nobody judges it). A loop comes before its symptom (it ends in a limit); drift does not end in a
// limit, so an unfinished reply is classed by its end. A reply that stopped by itself with an
// answer is classed by that answer, whatever its last tokens repeat: tables and lists of zeros are
// honest. Drift names why an answer is not correct, and takes nothing from one that is.
std::string_view class_of(const Outcome& outcome);
// Every class, best first: the order of tables and legends.
std::span<const std::string_view> all_classes();

struct Loop {
  int start = 0;   // index of the first token of the first copy
  int period = 0;  // tokens in a block
  int copies = 0;  // whole copies
};

// An exact loop at the end of the reply: the shortest period from 1 to kMaxPeriod whose block
// repeats at least kMinCopies times over at least kMinLoopTokens tokens, the last of which may be
// cut short. These thresholds follow what servers use (llama.cpp: 16–1024 tokens × 4; vllm-mlx: at
// least 48 tokens); the floor of 64 tokens lets "1,000,000,000,000" and short lists pass.
inline constexpr int kMaxPeriod = 1024;
inline constexpr int kMinCopies = 4;
inline constexpr int kMinLoopTokens = 64;
std::optional<Loop> find_suffix_loop(std::span<const int> ids);

}  // namespace assay::harness
