// Sums over ranks whose GPUs reach each other's memory (NVLink, or PCIe where the driver lets
// them), in one launch: each gives its values to all (NCCL's low-latency all-to-all: eight bytes of
// data with their flag, so that no barrier is needed), and each adds up in order of rank, as
// sum_parts_cuda does. Same bits as gathering first, without NCCL's own launch and its two stops.
#pragma once

#include <nccl.h>
#include <nccl_device.h>

#include <cstddef>

#include "kernels/cuda_memory.h"

namespace assay::engine {

// One rank's end. begin(), end() and the destructor: all ranks together, each with its own device
// current; several ranks of one thread within one NCCL group.
class RankSum {
 public:
  // Values of the largest sum: 16 rows of GLM-5.2's hidden state.
  static constexpr std::size_t kMaxValues = 98304;

  RankSum() = default;
  RankSum(const RankSum&) = delete;
  RankSum& operator=(const RankSum&) = delete;
  ~RankSum() { end(); }

  // Whether NCCL, as it is here, can: of the version that this was built for, with every GPU of
  // `comm` in reach.
  static bool can(ncclComm_t comm);
  // Takes memory on the device, 3 MB for two ranks. Done when the group ends.
  ncclResult_t begin(ncclComm_t comm);
  void end();
  // Whether it has begun.
  bool works() const { return comm_ != nullptr; }
  // As Comm::sum; whether it takes so many.
  bool takes(std::size_t n) const { return works() && n % 2 == 0 && n <= kMaxValues; }
  void sum(float* values, std::size_t n, kernels::CudaStream stream) const;

 private:
  ncclComm_t comm_ = nullptr;
  ncclDevComm on_device_{};
  ncclLLA2AHandle exchange_{};
};

}  // namespace assay::engine
