// Teacher forcing: what the model thinks of a given text.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace assay::engine {

class Engine;

struct PositionScore {
  int position;  // the logits that follow ids[position]
  double logsumexp;
  std::vector<std::pair<int, float>>
      top;                 // (id, logit), largest first, lower id first among equals
  int next_id = -1;        // ids[position + 1], if there is one …
  float next_logprob = 0;  // … and its log probability
};

// Scores `ids` once and keeps the given positions (ascending; empty: all).
Result<std::vector<PositionScore>> score(Engine& engine, std::span<const int> ids,
                                         std::span<const int> positions, int n_top);

}  // namespace assay::engine
