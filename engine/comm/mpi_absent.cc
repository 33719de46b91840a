// Instead of mpi_processes.cc where the build found no MPI.
#include "engine/comm/processes.h"

namespace assay::engine {

Result<std::unique_ptr<Processes>> join_processes() {
  return fail(
      "mpirun started several processes, and this assay was built without MPI: install Open MPI "
      "(Debian: libopenmpi-dev) and build again, or run it without mpirun (--tp N then shares a "
      "model within one process)");
}

}  // namespace assay::engine
