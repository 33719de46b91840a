// All ranks of a tensor-parallel model, seen from where it was loaded: threads of this process, or
// (of an MPI job) one of this process, and processes that rank_server.h serves.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/backend/rank.h"
#include "engine/comm/processes.h"
#include "engine/comm/rank_group.h"

namespace assay::engine {

// How one kind of ranks is made.
struct RankKind {
  std::string_view name;  // of the backend
  BackendLoader load;     // on the rank's own thread
  Result<Comms> (*new_comms)(int n_ranks);
  Result<std::unique_ptr<Comm>> (*new_process_comm)(Processes& processes);
};

class Ranks {
 public:
  // `processes`: null for ranks that are threads, else as many as the ranks, of which this is 0.
  static Result<std::shared_ptr<Ranks>> open(const RankKind& kind, int n_ranks,
                                             Processes* processes);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int size() const { return n_ranks_; }
  bool are_processes() const { return processes_ != nullptr; }
  static int new_id();

  // Every rank's answer, in order of rank.
  std::vector<Reply> run(Command command);
  // kLoad: a rank of this process gets what `load` makes.
  std::vector<Reply> load(Command command, const std::function<Result<RankModel>(int rank)>& load);

 private:
  Ranks(int id, int n_ranks, Processes* processes, Comms comms);
  using Here = std::function<Reply(Rank&, const Command&, Comm&)>;
  std::vector<Reply> ask(Command command, const Here& here);

  const int id_, n_ranks_;
  Processes* const processes_;
  std::vector<Rank> here_;  // the ranks of this process
  std::optional<RankGroup> group_;
};

// What every rank has under one id; dropped with it.
class OfRanks {
 public:
  // By a command that makes it: its id is chosen here.
  OfRanks(std::shared_ptr<Ranks> ranks, Command making);
  // What they have already.
  OfRanks(std::shared_ptr<Ranks> ranks, int id) : ranks_(std::move(ranks)), id_(id) {}
  ~OfRanks() { ranks_->run({.kind = Command::Kind::kDrop, .id = id_}); }
  OfRanks(const OfRanks&) = delete;
  OfRanks& operator=(const OfRanks&) = delete;

  const std::shared_ptr<Ranks>& ranks() const { return ranks_; }
  int id() const { return id_; }

 private:
  const std::shared_ptr<Ranks> ranks_;
  const int id_;
};

}  // namespace assay::engine
