// The executor of one GPU, operation by operation, and the one that records whole decode steps.
#pragma once

#include <memory>
#include <tuple>

#include "engine/backend/backend.h"
#include "engine/backend/cuda_model.h"

namespace assay::engine {

// What the launches of a step depend on, beside values that are uploaded before the first of them.
struct CudaStepShape {
  int n_rows = 0;
  int max_keys = 0;  // a power of two that no row's keys exceed
  bool operator<(const CudaStepShape& o) const {
    return std::tie(n_rows, max_keys) < std::tie(o.n_rows, o.max_keys);
  }
};

class CudaExecutor : public Backend {
 public:
  virtual CudaStepShape step_shape() const = 0;
  virtual kernels::CudaStream stream() const = 0;
};
// All memory is taken here.
std::unique_ptr<CudaExecutor> new_cuda_executor(std::shared_ptr<const CudaModel> model,
                                                const StepLimits& limits);

// Replays decode steps (a row to a sequence, nobody looking inside: StepRows::may_replay) as one
// CUDA graph each: the first step of a shape runs as it is, the second is recorded. The same
// kernels with the same arguments, so the same bits. Once graphs have taken most_bytes of the
// device, or one of them found no memory, may_record says so; a step that may not
// (StepRows::may_record) runs as it is.
std::unique_ptr<Backend> with_recorded_steps(std::unique_ptr<CudaExecutor> inner,
                                             std::size_t most_bytes);

}  // namespace assay::engine
