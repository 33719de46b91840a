// Measures on some experts of every layer what encoding leaves of the plan's predicted errors: they
// are encoded in every tier, with Hessians of the bf16 model's activations.
#pragma once

#include <functional>
#include <vector>

#include "engine/quantize/kept.h"
#include "engine/quantize/layer_pass.h"
#include "engine/quantize/plan.h"
#include "engine/quantize/state.h"

namespace assay::engine {

// Of n_wanted experts, evenly spread over those that saw tokens in the order of how many.
// Ascending.
std::vector<int> sampled_experts(const std::vector<ExpertStats>& stats, int n_wanted);

// What the encoder left in a layer's sampled experts.
struct SampledLayer {
  std::vector<int> experts;
  std::vector<Kept::OfLayer> error;  // of each: relative output errors
};

struct KeptSampleInput {
  const ModelConfig& config;
  const ModelWeights& weights;
  const Recipe& recipe;  // kept_sample experts a layer
  const ModelStats& stats;
  const State& state;  // finished layers are kept there
  LayerPass& pass;
  ThreadPool& pool;
  Stop& stop;
  std::function<Result<Rows>()> embedded;  // the first layer's input
  std::function<void(int done, int total)> on_progress;
  std::function<void(int layer)> on_layer;
};
// One pass of the bf16 model over the calibration set. (n_layers), dense layers without experts.
Result<std::vector<SampledLayer>> sample_kept(const KeptSampleInput& in,
                                              const std::vector<Codebook>& codebooks);

// Measured over predicted for each layer, projection and tier, as ratio of the sums of relative
// errors over the sample: the plan minimises a sum, and `allocation.prediction` reports the same
// ratio. 1 where nothing is predicted.
Kept kept_of_sample(const std::vector<SampledLayer>& sample,
                    const std::vector<LayerErrors>& predicted);

// As quantisation.json has it: the ratios of all layers together, and each layer's.
Json kept_json(const Kept& kept, const std::vector<Tier>& tiers);

}  // namespace assay::engine
