// What `assay compare` does with the models of two recorded runs: asks again (--confirm), and
// clocks in turns (--speed).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>

#include "base/result.h"
#include "harness/compare_speed.h"
#include "harness/confirm.h"
#include "harness/run_folder.h"

namespace assay::cli {

// Why there is no answer, though nothing failed: a model or a suite is not what was recorded, or
// Ctrl-C.
struct NoAnswer {
  std::string reason;  // empty: interrupted
};

// The second stage: both models one after the other, with the suites, options and machine code of
// now. Draws lie in `folder`/base and `folder`/candidate, evidence and no runs of their own.
Result<std::variant<harness::Confirmation, NoAnswer>> ask_again(const harness::RunFolder& base,
                                                                const harness::RunFolder& candidate,
                                                                const harness::Comparison& first,
                                                                int n_draws,
                                                                const fs::path& folder);

// Decode of both models, each repetition of the one beside one of the other.
Result<std::variant<harness::Speed, NoAnswer>> clock_in_turns(const harness::RunFolder& base,
                                                              const harness::RunFolder& candidate,
                                                              int n_repetitions);

}  // namespace assay::cli
