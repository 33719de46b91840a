// One rank of a tensor-parallel model: its shards, executors and caches, and what it does when it
// is asked. The same in a thread and in a process of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "engine/backend/backend.h"
#include "engine/backend/rank_command.h"
#include "engine/backend/shard.h"
#include "engine/comm/comm.h"

namespace assay::engine {

using BackendLoader = Result<std::shared_ptr<const BackendModel>> (*)(const ModelConfig&,
                                                                      const ModelWeights&,
                                                                      std::string_view kernel);

// A rank's part of a model.
struct RankModel {
  std::shared_ptr<const BackendModel> backend;
  int hidden = 0, vocab = 0;            // vocab: its part's
  std::vector<int> vocab_cuts;          // of all ranks
  std::shared_ptr<const void> weights;  // what the backend may compute from; null: held elsewhere
};
Result<RankModel> load_shard(const Sharding& sharding, int rank, BackendLoader load,
                             std::string_view kernel);

// All on the rank's own thread, where its device is.
class Rank {
 public:
  // kLoad: the model is what `load` makes.
  Reply load(int id, const std::function<Result<RankModel>()>& load, const Comm& comm);
  // All but kLoad, and what is not of one group alone. Ranks do the same together.
  Reply execute(const Command& command, Comm& comm);

 private:
  struct Executor {
    std::unique_ptr<Backend> backend;
    int vocab;
    std::vector<int> vocab_cuts;
  };
  Reply new_executor(const Command& command, Comm& comm);
  void run(const Command& command, Comm& comm, Reply* reply);
  StepRows rows_of(const Command& command) const;

  std::map<int, RankModel> models_;
  std::map<int, Executor> executors_;
  std::map<int, std::unique_ptr<KvCache>> caches_;
};

}  // namespace assay::engine
