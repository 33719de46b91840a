// A verb of the command line: one file each, one line each in verbs.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string_view>

#include "base/result.h"

namespace assay::cli {

// Exit codes, as README.md publishes them. A Result error that reaches main is kCouldNotRun.
inline constexpr int kPass = 0;
inline constexpr int kRegression = 1;
inline constexpr int kCouldNotRun = 2;  // bad input, no model, no device, no space
inline constexpr int kInvalid = 3;      // invalid or inconclusive: nothing can be concluded
inline constexpr int kInterrupted = 130;

// Does the work and returns the exit code. An error is printed once by main as "assay: error: …".
using Action = std::function<Result<int>()>;

struct Verb {
  std::string_view name;
  std::string_view summary;   // one line
  std::string_view examples;  // lines of "  assay …", shown under --help
  // Adds its options to `app` and returns what to do once they are parsed. State that both need
  // lives in a shared_ptr that the action captures.
  Action (*setup)(CLI::App& app);
};

extern const Verb run_verb;
extern const Verb compare_verb;
extern const Verb generate_verb;
extern const Verb inspect_verb;
extern const Verb tokenize_verb;
extern const Verb score_verb;
extern const Verb bench_verb;
extern const Verb trace_verb;
extern const Verb calibrate_verb;
extern const Verb quantize_verb;
extern const Verb diverge_verb;
extern const Verb extract_verb;
extern const Verb selftest_verb;
extern const Verb accept_verb;
extern const Verb attribute_verb;
extern const Verb synthesize_verb;

// Those that this build links, in the order in which --help lists them.
std::span<const Verb* const> all_verbs();

}  // namespace assay::cli
