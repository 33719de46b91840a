#include "engine/backend/ranks.h"

#include <atomic>
#include <utility>

#include "base/check.h"

namespace assay::engine {
namespace {

std::size_t rank_of(const Comm& comm) { return static_cast<std::size_t>(comm.rank()); }

Command with_id(Command command, int id) {
  command.id = id;
  return command;
}

Result<Comms> open_comms(const RankKind& kind, int n_ranks, Processes* processes) {
  if (processes == nullptr) return kind.new_comms(n_ranks);
  ASSAY_TRY(auto comm, kind.new_process_comm(*processes));
  Comms comms;
  comms.push_back(std::move(comm));
  return comms;
}

void send_to_all(Processes& processes, const Command& command) {
  const auto bytes = to_bytes(command);
  for (int rank = 1; rank < processes.size(); ++rank) processes.send(rank, bytes);
}

}  // namespace

int Ranks::new_id() {
  static std::atomic<int> last = 0;
  return ++last;
}

Result<std::shared_ptr<Ranks>> Ranks::open(const RankKind& kind, int n_ranks,
                                           Processes* processes) {
  const int id = new_id();
  const auto alone = no_work_of_ranks();
  if (processes != nullptr) {
    CHECK(processes->size() == n_ranks && processes->rank() == 0) << n_ranks;
    send_to_all(*processes,
                {.kind = Command::Kind::kOpen, .group = id, .backend = std::string(kind.name)});
  }
  ASSAY_TRY(Comms comms, open_comms(kind, n_ranks, processes));
  return std::shared_ptr<Ranks>(new Ranks(id, n_ranks, processes, std::move(comms)));
}

Ranks::Ranks(int id, int n_ranks, Processes* processes, Comms comms)
    : id_(id), n_ranks_(n_ranks), processes_(processes), here_(comms.size()) {
  group_.emplace(std::move(comms));
}

Ranks::~Ranks() {
  const auto alone = no_work_of_ranks();
  if (processes_ != nullptr)
    send_to_all(*processes_, {.kind = Command::Kind::kClose, .group = id_});
  group_.reset();  // together with theirs: NCCL may wait for the others
}

// Rank r of this process is here_[r]: all of them, or rank 0 alone.
std::vector<Reply> Ranks::ask(Command command, const Here& here) {
  command.group = id_;
  std::vector<Reply> replies(static_cast<std::size_t>(n_ranks_));
  group_->run([&](Comm& comm) {
    if (processes_ != nullptr) send_to_all(*processes_, command);
    replies[rank_of(comm)] = here(here_[rank_of(comm)], command, comm);
    if (processes_ == nullptr) return;
    for (int rank = 1; rank < n_ranks_; ++rank)
      replies[static_cast<std::size_t>(rank)] = from_bytes<Reply>(processes_->receive(rank));
  });
  return replies;
}

std::vector<Reply> Ranks::run(Command command) {
  return ask(std::move(command),
             [](Rank& rank, const Command& c, Comm& comm) { return rank.execute(c, comm); });
}

std::vector<Reply> Ranks::load(Command command,
                               const std::function<Result<RankModel>(int rank)>& load) {
  return ask(std::move(command), [&](Rank& rank, const Command& c, Comm& comm) {
    return rank.load(
        c.id, [&] { return load(comm.rank()); }, comm);
  });
}

OfRanks::OfRanks(std::shared_ptr<Ranks> ranks, Command making)
    : ranks_(std::move(ranks)), id_(Ranks::new_id()) {
  ranks_->run(with_id(std::move(making), id_));
}

}  // namespace assay::engine
