// One model on several ranks: each holds a shard (shard.h) in a model of the same backend, and
// partial results are added up between them (comm.h). docs/design/tensor-parallel.md
#pragma once

#include <memory>

#include "engine/backend/ranks.h"

namespace assay::engine {

// n_ranks > 1. `config` and `weights` as for load_cpu_model. Of `source`, ranks that are threads
// need the kernel alone; others load from its folder themselves (`processes`: Ranks::open). An
// error where the model cannot be shared by so many ranks, or where they cannot be had here.
Result<std::shared_ptr<const BackendModel>> load_tensor_parallel_model(
    const RankKind& kind, const ModelConfig& config, const ModelWeights& weights, int n_ranks,
    const ShardSource& source, Processes* processes = nullptr);

}  // namespace assay::engine
