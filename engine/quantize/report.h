// What quantisation.json says of a whole build: the bits of its experts, and whether the plan knew
// where they would be missed.
#pragma once

#include <vector>

#include "engine/quantize/plan.h"

namespace assay::engine {

// Per expert weight. The codes of a row fill whole words of 32 bits: what is left over is padding.
struct ExpertBits {
  double code = 0, padding = 0, scales = 0, codebooks = 0;
  double total() const { return code + padding + scales + codebooks; }
};
ExpertBits expert_bits(const ModelWeights& weights, const Plan& plan, const Recipe& recipe,
                       const std::vector<Codebook>& used);
Json to_json(const ExpertBits& bits);

// The relative output errors of modules as the plan predicted them (nearest codewords, statistics
// of the bf16 model) against those of the encoded modules: Spearman's correlation (null where it is
// not known) and the ratio of their sums, over all modules, by projection and by tier. `modules`:
// as quantisation.json has them.
Json prediction_json(const Json& modules);

}  // namespace assay::engine
