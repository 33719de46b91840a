// What an executor of one GPU computes in: everything that its steps will ever need, taken when it
// is made.
#pragma once

#include <array>
#include <optional>

#include "engine/backend/act_width.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda_model.h"
#include "engine/backend/cuda_products.h"
#include "kernels/cuda_memory.h"
#include "kernels/sample_cuda.h"
#include "kernels/step_upload.h"

namespace assay::engine {

struct CudaScratch {
  // A budget that only counts makes one that cannot be used.
  CudaScratch(const CudaModel& model, const StepLimits& limits, kernels::CudaStream stream,
              kernels::DeviceBudget& budget);

  // Keys of a step's longest sequence, as launches are made for them: a power of two, so that few
  // graphs serve all lengths.
  static int bucket(int n_keys);

  const int max_keys;    // the bucket of the longest context
  const int score_rows;  // whose index scores are there at a time

  std::array<kernels::DeviceArray<float>, kNumActs> acts;  // (max_rows, act_width)
  // (max_rows, …)
  kernels::DeviceArray<float> absorbed, latent, router_logits, expert_weight, routing_margin,
      selection_margin, index_q, index_weights, index_k;
  kernels::DeviceArray<int> expert, selected, n_selected;
  kernels::DeviceArray<float> scores;           // (score_rows, max_keys)
  kernels::DeviceArray<float> attention_parts;  // mla_most_parts()
  kernels::DeviceArray<float> logits;           // (n_sequences, vocab)
  kernels::DeviceArray<float> gathered_logits;  // (n_sequences, n_sampled), of several ranks
  CudaProducts products;
  std::optional<kernels::CudaSampler> sampler;  // none on ranks that do not sample
  kernels::StepUpload upload;
};

}  // namespace assay::engine
