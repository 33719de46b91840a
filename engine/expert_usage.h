// Which experts a text uses: what routing says, summed over its tokens.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"

namespace assay::engine {

class Engine;

// Routing weight by layer and expert as a share of the layer's (dense layers: all 0).
struct ExpertUsage {
  int n_layers = 0, n_experts = 0;
  std::vector<double> share;  // (n_layers, n_experts)
  std::size_t index(int layer, int expert) const {
    return static_cast<std::size_t>(layer) * static_cast<std::size_t>(n_experts) +
           static_cast<std::size_t>(expert);
  }
  double at(int layer, int expert) const { return share[index(layer, expert)]; }
};

// Reads every text once. A text that is empty or too long for the model is an error.
Result<ExpertUsage> expert_usage(Engine& engine, std::span<const std::vector<int>> texts);

}  // namespace assay::engine
