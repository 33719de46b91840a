// Ranks on GPUs of this machine. Parts are gathered and added up in order of rank, not all-reduced:
// NCCL's own order of summation goes by the size of the message, and a request's bits must not
// depend on what shares its batch.
#include <nccl.h>

#include <algorithm>
#include <barrier>

#include "base/check.h"
#include "engine/comm/comm.h"
#include "kernels/layer_cuda.h"

// NCCL_CHECK(call) << what: as CUDA_CHECK.
#define NCCL_CHECK(call)                                                     \
  if (const ncclResult_t nccl_result = (call); nccl_result == ncclSuccess) { \
  } else                                                                     \
    ::assay::CheckFailure(__FILE__, __LINE__, #call).stream()                \
        << ncclGetErrorString(nccl_result) << ": " << ncclGetLastError(nullptr) << ". "

namespace assay::engine {
namespace {

using kernels::DeviceArray;

class NcclComm final : public Comm {
 public:
  NcclComm(int rank, int size, ncclComm_t comm, std::shared_ptr<std::barrier<>> barrier)
      : rank_(rank), size_(size), comm_(comm), barrier_(std::move(barrier)) {}
  ~NcclComm() override { ncclCommDestroy(comm_); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void enter() override { kernels::select_cuda_device(rank_); }
  void meet() override { barrier_->arrive_and_wait(); }

  // Twice the last, so that all together are at most four times what is needed: none is freed,
  // because a recorded step of any executor may use it.
  void reserve(std::size_t n) override {
    const std::size_t have = parts_.empty() ? 0 : parts_.back().size(),
                      need = n * static_cast<std::size_t>(size_);
    if (need > have) parts_.emplace_back(std::max(need, 2 * have));
  }

  void sum(float* values, std::size_t n, kernels::CudaStream stream) override {
    CHECK(!parts_.empty() && n * static_cast<std::size_t>(size_) <= parts_.back().size()) << n;
    float* parts = parts_.back().data();
    NCCL_CHECK(ncclAllGather(values, parts, n, ncclFloat32, comm_, stream)) << n << " values";
    kernels::sum_parts_cuda(parts, size_, n, values, stream);
  }

 private:
  const int rank_, size_;
  const ncclComm_t comm_;
  const std::shared_ptr<std::barrier<>> barrier_;
  std::vector<DeviceArray<float>> parts_;  // (size, n) each; the last is in use
};

}  // namespace

Result<Comms> new_nccl_comms(int n_ranks) {
  CHECK(n_ranks > 0) << n_ranks;
  const int n_devices = kernels::n_cuda_devices();
  if (n_devices == 0)
    return fail(
        "no CUDA device here (no driver, or no GPU): run on a machine with {} GPUs, or with "
        "--backend cpu",
        n_ranks);
  if (n_devices < n_ranks)
    return fail("--tp {} asks for {} GPUs, {} here: ask for at most --tp {}", n_ranks, n_ranks,
                n_devices, n_devices);
  std::vector<ncclComm_t> of_rank(static_cast<std::size_t>(n_ranks));
  if (const ncclResult_t result = ncclCommInitAll(of_rank.data(), n_ranks, nullptr);
      result != ncclSuccess)
    return fail(
        "NCCL cannot connect {} GPUs: {}. NCCL_DEBUG=WARN says more; often /dev/shm is too small, "
        "or "
        "a GPU's memory is taken",
        n_ranks, ncclGetErrorString(result));
  const auto barrier = std::make_shared<std::barrier<>>(n_ranks);
  Comms comms;
  for (int r = 0; r < n_ranks; ++r)
    comms.push_back(
        std::make_unique<NcclComm>(r, n_ranks, of_rank[static_cast<std::size_t>(r)], barrier));
  return comms;
}

}  // namespace assay::engine
