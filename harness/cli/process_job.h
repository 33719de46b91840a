// A command that mpirun started as several processes: rank 0 does what it says, the others are
// ranks of the models that it loads.
#pragma once

#include <functional>

namespace assay::cli {

// `lead`: the whole command, in a process that is alone or rank 0. Returns the exit code.
int in_process_job(const std::function<int()>& lead);

// How many mpirun started, as its variables say; 1: alone.
int n_processes();

}  // namespace assay::cli
