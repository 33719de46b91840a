#include "harness/cli/process_job.h"

#include <array>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "engine/processes.h"
#include "harness/cli/say.h"
#include "harness/cli/verb.h"
#include "harness/version.h"

namespace assay::cli {
namespace {

// What a launcher tells its processes: Open MPI's mpirun, MPICH's or srun --mpi=pmi2, and
// srun --mpi=pmix, which leaves the size to Slurm.
struct Launcher {
  const char *size, *rank;
};
constexpr std::array<Launcher, 3> kLaunchers = {{{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                                 {"PMI_SIZE", "PMI_RANK"},
                                                 {"SLURM_NTASKS", "PMIX_RANK"}}};

int number(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoi(text);
}

// Of the job that started this process; null where it is alone. The first that gave it a rank
// decides: mpirun may run inside an allocation of Slurm's, whose tasks are then not its processes.
const Launcher* launcher() {
  for (const Launcher& l : kLaunchers)
    if (std::getenv(l.size) != nullptr && std::getenv(l.rank) != nullptr)
      return number(l.size, 1) > 1 ? &l : nullptr;
  return nullptr;
}

int serve(engine::ProcessJob& job) {
  try {
    job.serve();
  } catch (const std::exception& error) {  // rank 0 waits for an answer that will not come
    say("assay: error: rank {} of {}: {}\n", job.rank(), job.size(), error.what());
    job.abandon(kCouldNotRun);
    return kCouldNotRun;
  }
  return kPass;
}

}  // namespace

int n_processes() {
  const Launcher* const started_by = launcher();
  return started_by == nullptr ? 1 : number(started_by->size, 1);
}

int in_process_job(const std::function<int()>& lead) {
  const Launcher* const started_by = launcher();
  if (started_by == nullptr) return lead();
  const bool speaks = number(started_by->rank, 0) == 0;
  auto job = engine::ProcessJob::join(version_text());
  if (!job) {
    if (speaks) say("assay: error: {}\n", job.error().message);
    return kCouldNotRun;
  }
  if (job->size() != n_processes()) {
    if (speaks)
      say("assay: error: the launcher started {} processes, but MPI knows of {}: start them with "
          "the mpirun of the MPI that assay was built with\n",
          n_processes(), job->size());
    return kCouldNotRun;
  }
  return job->leads() ? lead() : serve(*job);
}

}  // namespace assay::cli
