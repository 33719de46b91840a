#include "engine/backend/rank_server.h"

#include <map>

#include "base/check.h"

namespace assay::engine {
namespace {

struct Group {
  RankKind kind;
  std::unique_ptr<Comm> comm;
  Rank rank;
};

class RankServer {
 public:
  RankServer(Processes& processes, const RankServices& services)
      : processes_(processes), services_(services) {}

  // False: rank 0 has ended.
  bool serve_one() {
    const Command c = from_bytes<Command>(processes_.receive(0));
    switch (c.kind) {
      case Command::Kind::kLeave:
        return false;
      case Command::Kind::kOpen:
        open(c);
        return true;
      case Command::Kind::kClose:
        groups_.erase(c.group);
        return true;
      default:
        processes_.send(0, to_bytes(answer(c)));
        return true;
    }
  }

 private:
  // Rank 0 has the same error, and says it.
  void open(const Command& c) {
    const auto kind = services_.find_kind(c.backend);
    CHECK(kind.has_value()) << c.backend;
    if (auto comm = kind->new_process_comm(processes_)) {
      (*comm)->enter();
      groups_[c.group] = {*kind, *std::move(comm), {}};
    }
  }
  Reply answer(const Command& c) {
    Group& g = groups_.at(c.group);
    if (c.kind != Command::Kind::kLoad) return g.rank.execute(c, *g.comm);
    return g.rank.load(
        c.id, [&] { return services_.load(g.kind, c, *g.comm); }, *g.comm);
  }

  Processes& processes_;
  const RankServices& services_;
  std::map<int, Group> groups_;
};

}  // namespace

void serve_rank(Processes& processes, const RankServices& services) {
  RankServer server(processes, services);
  while (server.serve_one()) {
  }
}

}  // namespace assay::engine
