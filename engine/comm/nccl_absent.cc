// Instead of nccl_comm.cc where the build found no nvcc or no NCCL.
#include "engine/comm/comm.h"
#include "engine/comm/processes.h"

namespace assay::engine {

namespace {

tl::unexpected<Error> refuse(int n_ranks) {
  return fail(
      "--tp {} on backend cuda needs NCCL, and this assay was built without it: install the CUDA "
      "toolkit and NCCL (nccl.h and libnccl.so), and build again, or run with --tp 1",
      n_ranks);
}

}  // namespace

Result<Comms> new_nccl_comms(int n_ranks) { return refuse(n_ranks); }

// In every process: one build.
Result<std::unique_ptr<Comm>> new_nccl_process_comm(Processes& processes) {
  return refuse(processes.size());
}

}  // namespace assay::engine
