// Sums over ranks whose GPUs reach each other's memory (NVLink, or PCIe where the driver lets
// them), in one launch: each gives its values to all (NCCL's low-latency all-to-all: every four
// bytes with a flag of their round, so that no barrier is needed), and each adds up in order of
// rank, as sum_parts_cuda does. Same bits as gathering first, without NCCL's own launch and its two
// stops.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/cuda_memory.h"

namespace assay::engine {

// One rank's end; all ranks make the same calls in the same order, and of two models' ranks on the
// same GPUs one at a time (RankGroup), for a sum that waits keeps what runs behind it on the GPU.
class RankSum {
 public:
  // Values of the largest sum: 16 rows of GLM-5.2's hidden state.
  static constexpr std::size_t kMaxValues = 98304;

  RankSum();
  ~RankSum();
  RankSum(const RankSum&) = delete;
  RankSum& operator=(const RankSum&) = delete;

  // "" where NCCL, as it is here, may: the release that this was built for, and all ranks on one
  // machine. Else why not, the same in all ranks of a machine.
  static std::string why_not(ncclComm_t comm);
  // Takes memory on the rank's device, 3 MB for two ranks. Of several ranks in one thread within
  // an NCCL group, whose end is the beginning. ncclInvalidUsage: these GPUs do not reach each
  // other's memory, and `comm` is as it was. After any other error `comm` is of no use.
  ncclResult_t begin(ncclComm_t comm);
  // After an error, of begin or of the group: nothing is given back.
  void drop();
  // Before `comm` is destroyed.
  void end();
  bool works() const { return on_device_ != nullptr; }
  // As Comm::sum; whether it takes so many.
  bool takes(std::size_t n) const { return works() && n > 0 && n % 2 == 0 && n <= kMaxValues; }
  void sum(float* values, std::size_t n, kernels::CudaStream stream) const;

 private:
  struct OnDevice;
  ncclComm_t comm_ = nullptr;
  std::unique_ptr<OnDevice> on_device_;
};

}  // namespace assay::engine
