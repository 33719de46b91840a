// One model on several ranks: each holds a shard (shard.h) in a model of the same backend, and
// partial results are added up between them (comm.h). docs/design/tensor-parallel.md
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "engine/backend/backend.h"
#include "engine/comm/comm.h"

namespace assay::engine {

using BackendLoader = Result<std::shared_ptr<const BackendModel>> (*)(const ModelConfig&,
                                                                      const ModelWeights&,
                                                                      std::string_view kernel);
using CommMaker = Result<Comms> (*)(int n_ranks);

// How one kind of ranks is made.
struct RankKind {
  BackendLoader load;  // on the rank's own thread
  CommMaker new_comms;
};

// n_ranks > 1. `config` and `weights` as for load_cpu_model. An error where the model cannot be
// shared by so many ranks, or where they cannot be had here.
Result<std::shared_ptr<const BackendModel>> load_tensor_parallel_model(const RankKind& kind,
                                                                       const ModelConfig& config,
                                                                       const ModelWeights& weights,
                                                                       std::string_view kernel,
                                                                       int n_ranks);

}  // namespace assay::engine
