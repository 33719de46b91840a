// The Hessians of a sparse layer's experts: an expert that saw few tokens leans on its layer.
#pragma once

#include <vector>

#include "engine/quantize/expert_stats.h"
#include "engine/quantize/hessian.h"
#include "engine/quantize/recipe.h"

namespace assay::engine {

class ExpertHessians {
 public:
  // `inputs` stays the caller's. `stop` makes what is asked of it afterwards an error.
  ExpertHessians(const ModelConfig& config, const Recipe& recipe, const MoeInputs& inputs,
                 ThreadPool& pool, Stop* stop);

  int n_tokens(std::size_t expert) const { return rows_[expert].n(); }
  // Of what gate and up read.
  Result<Hessian> of_inputs(std::size_t expert) const;
  // Of what down reads: the hidden values that this gate and up make of the tokens, those of other
  // experts' tokens included. Hidden values of other experts mean nothing to it.
  Result<Hessian> of_hidden(std::size_t expert, const MlpWeights& weights) const;

 private:
  const ModelConfig& config_;
  const Recipe& recipe_;
  const MoeInputs& inputs_;
  ThreadPool& pool_;
  Stop* stop_;
  std::vector<ExpertRows> rows_;
  Hessian
      of_layer_;  // what an average expert would be given: every token, by its mean square weight
  float typical_ = 0;  // weight of a token
  Rows sample_;        // tokens that a down projection borrows
};

}  // namespace assay::engine
