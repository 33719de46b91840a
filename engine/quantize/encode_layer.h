// Encodes one layer: its experts as VQ codes, its spine as 4- or 8-bit GPTQ.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/quantize/gptq_vq.h"
#include "engine/quantize/hessian.h"
#include "engine/quantize/layer_pass.h"
#include "engine/quantize/plan.h"
#include "engine/quantize/state.h"
#include "engine/quantize/tier_factors.h"

namespace assay::engine {

struct EncodedLayer {
  std::vector<NewTensor> tensors;  // everything of the layer, what stays dense included
  Json report;                     // by module: format, samples, relative output error
};

// That every matrix of the spine can be packed in the bits that the recipe gives it: found out
// before hours of work instead of after.
Result<void> check_spine(const ModelWeights& weights, const Recipe& recipe);

// How an expert's projection is encoded. `h` is pointed at.
GptqVqOptions vq_options(const Recipe& recipe, bool compensate, const Hessian& h, Stop* stop);

class LayerEncoder {
 public:
  LayerEncoder(const ModelConfig& config, const Recipe& recipe, const Plan& plan,
               const std::vector<Codebook>& codebooks, LayerPass& pass, ThreadPool& pool,
               Stop& stop)
      : config_(config),
        recipe_(recipe),
        plan_(plan),
        codebooks_(codebooks),
        pass_(pass),
        pool_(pool),
        stop_(stop) {}

  // `residual`: the layer's input, replaced by the output of the encoded layer.
  Result<EncodedLayer> encode(int layer, const LayerWeights& weights, Rows& residual);

  // All that is in no layer: embedding, final norm and head, whose inputs are `residual`'s norms.
  Result<EncodedLayer> encode_ends(const ModelWeights& weights, const Rows& residual);

 private:
  Result<void> encode_attention(int layer, LayerWeights& weights, const Rows& residual,
                                EncodedLayer& out);
  Result<void> encode_mlp(const Rows& x, MlpWeights& mlp, int bits, EncodedLayer& out);
  Result<void> encode_experts(int layer, const MoeInputs& inputs, LayerWeights& weights,
                              EncodedLayer& out);
  // Replaces `m` by its codes, which `out` holds; with 16 bits it stays.
  Result<void> encode_spine(Matrix& m, int bits, const Hessian& h, EncodedLayer& out);
  // `factors` are h's.
  Result<void> encode_vq(Matrix& m, int tier, const Hessian& h, TierFactors& factors,
                         bool compensate, int n_samples, EncodedLayer& out);

  const ModelConfig& config_;
  const Recipe& recipe_;
  const Plan& plan_;
  const std::vector<Codebook>& codebooks_;
  LayerPass& pass_;
  ThreadPool& pool_;
  Stop& stop_;  // asked within every matrix
};

// The layer as its file has it: modules that the file holds as codes replace those of `weights`.
// Points into `file` and `codebooks`.
Result<LayerWeights> coded_layer(int layer, const LayerWeights& weights,
                                 const SafetensorsFile& file, const Plan& plan,
                                 const std::vector<Codebook>& codebooks, const Recipe& recipe);

// "model.layers.3.mlp.experts.0.gate_proj": `m`'s module, where weights may be slices of a stack.
std::string expert_module(int layer, std::size_t expert, std::size_t projection);

}  // namespace assay::engine
