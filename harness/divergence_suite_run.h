// Runs a divergence suite: candidate against a base that is loaded or captured.
#pragma once

#include <optional>
#include <stop_token>

#include "base/result.h"
#include "engine/engine.h"
#include "harness/divergence_run.h"
#include "harness/divergence_suite.h"

namespace assay::harness {

// Exactly one of `loaded` and `captured`; none of them: the suite is not run (kNoBase).
struct DivergenceAgainst {
  const engine::Engine* loaded = nullptr;
  // The base in another arithmetic (backend or kernel), for its noise floor; none: not measured.
  const engine::Engine* loaded_again = nullptr;
  const DivergenceBase* captured = nullptr;  // its noise floor is in it
};

// A result (harness/divergence_result.h), the same that `assay diverge --json` prints. Errors say
// why the two cannot be compared: another tokenizer or vocabulary, texts that a model cannot hold,
// a base that was captured from other texts. Stopped between texts: none.
Result<std::optional<Json>> run_divergence(const DivergenceSuite& suite,
                                           const DivergenceSettings& settings,
                                           const DivergenceAgainst& against,
                                           const engine::Engine& candidate, int n_threads,
                                           const TextHook& on_text = {},
                                           const std::stop_token& stop = {});

}  // namespace assay::harness
