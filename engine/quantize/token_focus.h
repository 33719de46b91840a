// Which calibration tokens an error may move: what the Hessians and sensitivities weigh them by.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "engine/checkpoint/weights.h"
#include "engine/quantize/layer_pass.h"

namespace assay::engine {

// Of each token the mean cost of unit noise in the logits that it ends in: 1 − Σ p², twice the KL
// divergence to second order. Where the model is sure of what follows, next to nothing is lost
// (Fisher information as a weight: Kim 2023, SqueezeLLM, arXiv:2306.07629, section 4.1, there per
// weight). `residual` (n_tokens, hidden) is the last layer's output; tokens before `first_reply` −
// 1 of each text predict no reply and get 0.
Result<std::vector<float>> token_uncertainty(const ModelConfig& config, const ModelWeights& weights,
                                             const Rows& residual,
                                             const std::vector<int>& text_lengths,
                                             const std::vector<int>& first_reply, ThreadPool& pool,
                                             Stop* stop);

// (1 − focus) + focus · uncertainty / its mean; all 1 where nothing is uncertain.
std::vector<float> token_weights(const std::vector<float>& uncertainty, double focus);

}  // namespace assay::engine
