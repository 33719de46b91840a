#include <nccl_device.h>

#include <cstdint>

#include "base/check.h"
#include "engine/comm/rank_sum.h"
#include "kernels/cuda_check.cuh"

namespace assay::engine {
namespace {

constexpr int kThreads = 256;  // a pair of values each
constexpr int kMaxBlocks = static_cast<int>(RankSum::kMaxValues) / (2 * kThreads);
constexpr int kAtOnce = 8;  // ranks whose values a thread waits for together

__global__ void __launch_bounds__(kThreads)
    sum_over_ranks(const __grid_constant__ ncclDevComm comm, ncclLLA2AHandle exchange,
                   float2* values, int n_pairs) {
  kernels::await_previous();
  kernels::let_next_begin();
  const ncclTeam all = ncclTeamLsa(comm);
  const int thread = static_cast<int>(threadIdx.x),
            i = static_cast<int>(blockIdx.x) * kThreads + thread;
  ncclLLA2ASession<ncclCoopCta> session(ncclCoopCta(), comm, all, exchange, blockIdx.x,
                                        all.nRanks * kThreads);
  session.bcast(all.rank * kThreads + thread, i < n_pairs ? values[i] : float2{0, 0});
  float2 sum{};
  for (int first = 0; first < all.nRanks; first += kAtOnce) {
    float2 part[kAtOnce];
    const int n = min(kAtOnce, all.nRanks - first);
    session.recvUnrolled<1, kAtOnce>(first * kThreads + thread, n, kThreads, part);
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r)
      if (r < n) sum = first + r == 0 ? part[0] : float2{sum.x + part[r].x, sum.y + part[r].y};
  }
  if (i < n_pairs) values[i] = sum;
  session.endEpoch(ncclCoopCta());
}

}  // namespace

struct RankSum::OnDevice {
  ncclDevComm comm{};
  ncclLLA2AHandle exchange{};
};

RankSum::RankSum() = default;
RankSum::~RankSum() { end(); }

std::string RankSum::why_not(ncclComm_t comm) {
  // What the device reads, and what the library writes, differs between releases of one minor
  // version too.
  int version = 0, n_ranks = 0;
  const auto text = [](int v) {
    return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
           std::to_string(v % 100);
  };
  if (ncclGetVersion(&version) != ncclSuccess || version != NCCL_VERSION_CODE)
    return "NCCL is " + text(version) + ", built for " + text(NCCL_VERSION_CODE);
  if (ncclCommCount(comm, &n_ranks) == ncclSuccess && ncclTeamLsa(comm).nRanks == n_ranks)
    return "";
  return "ranks on several machines";
}

ncclResult_t RankSum::begin(ncclComm_t comm) {
  CHECK(!works());
  int n_ranks = 0;
  if (const ncclResult_t result = ncclCommCount(comm, &n_ranks); result != ncclSuccess)
    return result;
  auto made = std::make_unique<OnDevice>();
  ncclDevResourceRequirements memory{};
  ncclLLA2ACreateRequirement(kMaxBlocks, ncclLLA2ACalcSlots(n_ranks * kThreads, sizeof(float2)),
                             &made->exchange, &memory);
#ifdef NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER
  ncclDevCommRequirements needs = NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER;
#else
  ncclDevCommRequirements needs{};
#endif
  needs.resourceRequirementsList = &memory;
  const ncclResult_t result = ncclDevCommCreate(comm, &needs, &made->comm);
  if (result != ncclSuccess) return result;
  comm_ = comm;
  on_device_ = std::move(made);
  return result;
}

void RankSum::drop() { on_device_ = nullptr; }

void RankSum::end() {
  if (works()) ncclDevCommDestroy(comm_, &on_device_->comm);
  drop();
}

void RankSum::sum(float* values, std::size_t n, kernels::CudaStream stream) const {
  CHECK(takes(n) && reinterpret_cast<std::uintptr_t>(values) % sizeof(float2) == 0) << n;
  const int n_pairs = static_cast<int>(n / 2);
  kernels::overlapped(sum_over_ranks, dim3((n_pairs + kThreads - 1) / kThreads), kThreads, 0,
                      stream, on_device_->comm, on_device_->exchange,
                      reinterpret_cast<float2*>(values), n_pairs);
}

}  // namespace assay::engine
