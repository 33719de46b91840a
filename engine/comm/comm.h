// What the ranks of a tensor-parallel model have in common: they meet, and they add up partial
// results. A rank is a thread with a model of its own: of this process (rank_group.h), or the one
// of a process of an MPI job (processes.h).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/cuda_memory.h"

namespace assay::engine {

class Processes;

// One rank's end. Called on that rank's thread only; all ranks make the same calls in the same
// order.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // The first call on the rank's thread: its device becomes the thread's.
  virtual void enter() = 0;
  // Returns when every rank has come here. Of what a device still computes it says
  // nothing.
  virtual void meet() = 0;
  // As meet; whether every rank said yes.
  virtual bool agree(bool yes) = 0;
  // Room for sums of n values. While no sum is under way: when an executor is made.
  virtual void reserve(std::size_t n) = 0;
  // values (n) becomes, with the same bits in every rank, the sum over ranks in order of rank, in
  // float32. It is in the memory of the rank's backend: on `stream` of its device, which may be
  // recording, or on the host (null).
  virtual void sum(float* values, std::size_t n, kernels::CudaStream stream) = 0;
  // For the record, where there are ways to choose from; else empty.
  virtual std::string how_it_sums() const { return {}; }
  // Rank 0's `whole` (rows.size(), cuts.back()) becomes, row by row, what the ranks have of it side
  // by side: rows[i] of rank r are its values [cuts[r], cuts[r + 1]) of row i. All in the memory of
  // the ranks' backend, as of sum; nothing is written on other ranks, whose `whole` is null.
  virtual void gather(std::span<const float* const> rows, std::span<const int> cuts, float* whole,
                      kernels::CudaStream stream) = 0;
};
// Of rank r, as gather counts: cuts[r + 1] - cuts[r].
inline std::size_t part_width(std::span<const int> cuts, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  return static_cast<std::size_t>(cuts[r + 1] - cuts[r]);
}
using Comms = std::vector<std::unique_ptr<Comm>>;  // by rank

// Ranks in host memory.
Result<Comms> new_thread_comms(int n_ranks);
// A GPU each, devices 0 … n_ranks - 1. An error where there are not as many, or where the build
// found no NCCL.
Result<Comms> new_nccl_comms(int n_ranks);

// The end of this process's rank; all processes make it together, and all get the error of one.
Result<std::unique_ptr<Comm>> new_process_comm(Processes& processes);  // in host memory
// On the GPU whose number is the process's among those of its machine, or on the only one that it
// sees; becomes the thread's device. Two processes on one GPU are an error.
Result<std::unique_ptr<Comm>> new_nccl_process_comm(Processes& processes);

}  // namespace assay::engine
