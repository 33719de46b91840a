// A process of an MPI job that is a rank: it does what rank 0 asks, and decides nothing.
#pragma once

#include <functional>
#include <string_view>

#include "engine/backend/ranks.h"

namespace assay::engine {

struct RankServices {
  std::function<Result<RankKind>(std::string_view backend)> find_kind;
  // Of kLoad: this rank's part of the model in Command::dir.
  std::function<Result<RankModel>(const RankKind&, const Command&, const Comm&)> load;
};

// Until rank 0 says kLeave.
void serve_rank(Processes& processes, const RankServices& services);

}  // namespace assay::engine
