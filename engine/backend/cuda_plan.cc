// The memory of executors on one GPU: how much, and whether it is there.
#include <algorithm>
#include <new>
#include <utility>

#include "base/check.h"
#include "engine/backend/cuda_backend.h"
#include "engine/backend/cuda_cache.h"
#include "engine/backend/cuda_scratch.h"
#include "kernels/roof_cuda.h"

namespace assay::engine {
namespace {

constexpr int kStepSequences = 64;  // as many single tokens are one step, which is one graph

std::size_t scratch_bytes(const CudaModel& model, const StepLimits& limits) {
  kernels::DeviceBudget budget(kernels::DeviceBudget::Mode::kCount);
  const CudaScratch counted(model, limits, nullptr, budget);
  return budget.n_bytes();
}

std::int64_t signed_size(std::size_t n) { return static_cast<std::int64_t>(n); }

}  // namespace

Result<std::vector<DeviceRoof>> CudaModel::measure_roofs() const {
  const std::int64_t all = signed_size(memory.bytes()),
                     keys = signed_size(CudaCachePool::kv_bytes_per_token(c)),
                     drawn =
                         c.n_experts > 0 ? routed_bytes_ * c.n_experts_per_token / c.n_experts : 0,
                     row = embed_bytes_ / embed.n_rows;
  DeviceRoof roof;
  // Halves of keys: the low ones are left where they are (MlaAttentionCuda::half).
  roof.token = {.weights = all - routed_bytes_ + drawn - embed_bytes_ + row - index_bytes_,
                .index_weights = index_bytes_,
                .per_key = how.bf16_chunks ? keys / 2 : keys,
                .per_index_key = signed_size(CudaCachePool::bytes_per_token(c)) - keys};
  try {
    roof.read_bytes_per_s = kernels::read_bytes_per_s_cuda();
  } catch (const std::bad_alloc&) {
    return fail(
        "the GPU has no 1 GiB left to measure reads with: ask for a shorter --context, or use an "
        "emptier GPU");
  }
  roof.half_fma_per_s = kernels::half_fma_per_s_cuda();
  return std::vector{roof};
}

Result<MemoryPlan> CudaModel::plan(const MemoryNeeds& needs) const {
  const int chunk = std::min(needs.prefill_chunk, needs.n_positions);
  const bool by_row = c.n_experts > 0 && !how.bf16_chunks;
  ASSAY_TRY_VOID(check_chunk(chunk, kStepSequences, by_row ? c.n_experts_per_token : 1));
  MemoryPlan plan{.limits = {.n_rows = chunk + kStepSequences,
                             .n_sequences = kStepSequences,
                             .n_positions = needs.n_positions,
                             .sparse = needs.sparse,
                             .graph_bytes = needs.graph_bytes},
                  .weight_bytes = weight_bytes(),
                  .n_executors = needs.n_executors};
  plan.scratch_bytes = scratch_bytes(*this, plan.limits);
  plan.sum_bytes = bytes_of_sums(needs.n_ranks, plan.limits, c.hidden);
  return promise.plan([&](std::size_t promised_bytes) {
    const kernels::CudaDevice now = kernels::cuda_device();
    return fit(plan, needs.n_contexts, CudaCachePool::bytes_per_token(c), CudaCachePool::kGrain,
               {now.name, now.free_bytes, now.total_bytes, promised_bytes});
  });
}

// Asked for, it is not sure to be there: others take memory between a look and the allocations.
Result<std::unique_ptr<Backend>> CudaModel::new_executor(int, const StepLimits& limits) const {
  CHECK(limits.cache_tokens != kUnlimited) << "an executor of cuda is made as plan() says";
  const std::size_t need =
      scratch_bytes(*this, limits) +
      static_cast<std::size_t>(limits.cache_tokens) * CudaCachePool::bytes_per_token(c) +
      (how.records_steps ? limits.graph_bytes : 0);
  const auto room = [] {
    const kernels::CudaDevice now = kernels::cuda_device();
    return DeviceRoom{now.name, now.free_bytes, now.total_bytes};
  };
  if (need > room().free_bytes) return gone(need, room());
  try {
    auto executor = new_cuda_executor(shared_from_this(), limits);
    if (how.records_steps) return with_recorded_steps(std::move(executor), limits.graph_bytes);
    return std::unique_ptr<Backend>(std::move(executor));
  } catch (const kernels::NoPinnedMemory& e) {
    return no_pinned_memory(e.n_bytes);
  } catch (const std::bad_alloc&) {
    return gone(need, room());
  }
}

}  // namespace assay::engine
