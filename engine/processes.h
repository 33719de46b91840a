// Ranks that are processes: who has main() joins the MPI job that its process was started in.
// `--tp N` then shares a model between the job's N processes. docs/design/tensor-parallel.md
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"

namespace assay::engine {

class Processes;  // engine/comm/processes.h

class ProcessJob {
 public:
  // Once in a process, before anything else is done in it. `build`: what all must be the same of.
  // Every process gets the error of one.
  static Result<ProcessJob> join(std::string_view build);
  ~ProcessJob();  // of the leader: the others end too
  ProcessJob(ProcessJob&&) noexcept;
  ProcessJob& operator=(ProcessJob&&) = delete;

  bool leads() const;  // rank 0, which does the work; of the others it asks their part of a model
  int rank() const;
  int size() const;
  void serve();                 // of the others: until rank 0 has ended
  void abandon(int exit_code);  // ends every process at once

 private:
  explicit ProcessJob(std::unique_ptr<Processes> processes);
  std::unique_ptr<Processes> processes_;
};

// Of the job that this process has joined and leads; null where it is alone.
Processes* joined_processes();

}  // namespace assay::engine
