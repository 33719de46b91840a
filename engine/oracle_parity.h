// For tests: how far an engine is from what Hugging Face transformers computed
// (golden/micro-glm/oracle).
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace assay::engine {

std::string micro_glm_dir(const char* build = "model");  // golden/micro-glm/<build>
Json oracle(const char* file);                           // golden/micro-glm/oracle/<file>

// Why Engine::load failed: this machine has no GPU, or fewer than were asked for.
bool is_for_want_of_gpus(const Error& error);

// Near-ties that may turn a path: where the best left-out candidate is this close, float32 itself
// decides.
inline constexpr double kRouterTie = 1e-4, kSelectionTie = 1e-4, kTop2Tie = 2e-3;

// The result for one record. `fork` names the near-tie from which on the record is not comparable,
// if there is one; `failure` says what was wrong, if anything.
struct RecordParity {
  std::string name;
  bool sparse = false;
  int n_tokens = 0, n_checked = 0;
  // Over the checked positions, of the listed logits and of logsumexp: the largest, and their root
  // mean square (check_logits).
  double max_delta = 0, rms_delta = 0;
  std::optional<std::string> fork, failure;
};

struct ParityBound {
  double max;
  double rms = std::numeric_limits<double>::infinity();
};

// Record `index` of logits.json.gz, or of a file like it for another build; `engine` must run the
// record's kind of attention.
RecordParity check_logits(Engine& engine, const Json& records, std::size_t index,
                          const ParityBound& bound);

// The bound for a bfloat16 engine: 1.5 times how far transformers' own bfloat16 run was from the
// record (`errors`: what golden/micro-glm/oracle/bf16_error.py wrote). An error where it is not
// there.
Result<ParityBound> bf16_bound(const Json& errors, const Json& records, std::size_t index);

// One record of continuations.json.gz: greedy decoding must give the same ids.
RecordParity check_continuation(Engine& engine, const Json& record);

// One record of hidden.json.gz: the output of every layer at the listed positions.
RecordParity check_hidden(Engine& engine, std::size_t index, double bound);

std::string parity_table(const std::vector<RecordParity>& rows);

}  // namespace assay::engine
