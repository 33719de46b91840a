// The processes of one MPI job, on one machine or several, each of which is a rank.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace assay::engine {

// One thread at a time; what says "all" is called by all, in the same order.
class Processes {
 public:
  virtual ~Processes() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int rank_on_host() const = 0;  // among those of this machine: which GPU is its own

  virtual void send(int to, std::span<const std::byte> message) = 0;
  // Waits as long as it takes, at first busily, then without taking a core from anybody.
  virtual std::vector<std::byte> receive(int from) = 0;
  virtual void meet() = 0;  // all
  // All: `own` of each, of the same size, side by side in order of rank.
  virtual void gather(std::span<const std::byte> own, std::byte* parts) = 0;
  // All: nothing may be called after it.
  virtual void leave() = 0;
  // Ends every process of the job, at once.
  virtual void abandon(int exit_code) = 0;
};

// MPI_Init, once in a process. An error where the build found no MPI.
Result<std::unique_ptr<Processes>> join_processes();

// All: an error in all of them where one has one ("" is none), the first in order of rank.
Result<void> agree(Processes& processes, const std::string& error);
// All: whether all say yes.
bool all_agree(Processes& processes, bool yes);

}  // namespace assay::engine
