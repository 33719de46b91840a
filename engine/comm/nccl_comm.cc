// Ranks on GPUs: of this machine, a thread each, or of several, a process each. Parts are gathered
// and added up in order of rank, not all-reduced: NCCL's own order of summation goes by the size of
// the message, and a request's bits must not depend on what shares its batch.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <functional>
#include <new>
#include <span>

#include "base/check.h"
#include "engine/comm/comm.h"
#include "engine/comm/meeting.h"
#include "engine/comm/processes.h"
#include "engine/comm/rank_sum.h"
#include "kernels/current_cuda_device.h"
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

// As Comm's, on the host.
struct HostSide {
  std::function<void()> meet;
  std::function<bool(bool yes)> agree;
};

class NcclComm final : public Comm {
 public:
  NcclComm(int rank, int size, int device, ncclComm_t comm, HostSide host)
      : rank_(rank), size_(size), device_(device), comm_(comm), host_(std::move(host)) {}
  ~NcclComm() override {
    sums_.end();
    if (comm_ != nullptr) ncclCommDestroy(comm_);
  }
  // Who waits in NCCL for this rank stops waiting, with an error.
  void abort() {
    sums_.drop();
    ncclCommAbort(comm_);
    comm_ = nullptr;
  }

  ncclComm_t nccl() const { return comm_; }
  RankSum& sums() { return sums_; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void enter() override { kernels::select_cuda_device(device_); }
  void meet() override { host_.meet(); }
  bool agree(bool yes) override { return host_.agree(yes); }
  std::string how_it_sums() const override {
    if (sums_.works()) return "sums in one launch (long ones of gathered parts)";
    return fmt::format("sums of gathered parts ({})", why_gathered_);
  }
  // Where sums do not go in one launch.
  void gather_because(const std::string& why) {
    sums_.drop();
    why_gathered_ = why;
  }

  // All executors of the ranks share one, as large as the largest asked for. None is freed, because
  // a recorded step of any executor may use it.
  void reserve(std::size_t n) override {
    const std::size_t have = parts_.empty() ? 0 : parts_.back().size(),
                      need = n * static_cast<std::size_t>(size_);
    if (need > have) parts_.emplace_back(need);
  }

  void sum(float* values, std::size_t n, kernels::CudaStream stream) override {
    if (sums_.takes(n)) return sums_.sum(values, n, stream);
    CHECK(!parts_.empty() && n * static_cast<std::size_t>(size_) <= parts_.back().size()) << n;
    float* parts = parts_.back().data();
    NCCL_CHECK(ncclAllGather(values, parts, n, ncclFloat32, comm_, stream)) << n << " values";
    kernels::sum_parts_cuda(parts, size_, n, values, stream);
  }

  void gather(std::span<const float* const> rows, std::span<const int> cuts, float* whole,
              kernels::CudaStream stream) override {
    NCCL_CHECK(ncclGroupStart()) << rank_;
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rank_ > 0)
        NCCL_CHECK(ncclSend(rows[i], part_width(cuts, rank_), ncclFloat32, 0, comm_, stream))
            << rank_;
      else
        put_together(rows[i], cuts, whole + i * static_cast<std::size_t>(cuts.back()), stream);
    NCCL_CHECK(ncclGroupEnd()) << rows.size() << " rows";
  }

 private:
  // On rank 0: one row, of which `own` is its part.
  void put_together(const float* own, std::span<const int> cuts, float* row,
                    kernels::CudaStream stream) {
    kernels::copy_on_device(row, own, part_width(cuts, 0) * sizeof(float), stream);
    for (int r = 1; r < size_; ++r)
      NCCL_CHECK(ncclRecv(row + cuts[static_cast<std::size_t>(r)], part_width(cuts, r), ncclFloat32,
                          r, comm_, stream))
          << "from rank " << r;
  }

  const int rank_, size_, device_;
  ncclComm_t comm_;
  const HostSide host_;
  RankSum sums_;
  std::string why_gathered_ = "not connected";
  std::vector<DeviceArray<float>> parts_;  // (size, n) each; the last is in use
};

std::string no_device(int n_ranks) {
  return fmt::format(
      "no CUDA device here (no driver, or no GPU): run on a machine with {} GPUs, or with "
      "--backend cpu",
      n_ranks);
}

std::string cannot_connect(int n_ranks, ncclResult_t result) {
  return fmt::format(
      "NCCL cannot connect {} GPUs: {}. NCCL_DEBUG=WARN says more; often /dev/shm is too small, or "
      "a GPU's memory is taken",
      n_ranks, ncclGetErrorString(result));
}

struct Rank {
  int rank, device;
  ncclComm_t comm;
};

// NCCL takes memory, and connects, for messages between two ranks and for gathering when there is a
// first one: these, before anyone plans with what is free or records what gathers. `values`: of
// each rank here, as many as the ranks are. All ranks do it together.
ncclResult_t exchange(std::span<const Rank> here, int n_ranks,
                      const std::vector<DeviceArray<float>>& values) {
  ncclResult_t result = ncclGroupStart();
  const auto add = [&](ncclResult_t r) { result = result == ncclSuccess ? r : result; };
  for (std::size_t i = 0; i < here.size(); ++i) {
    kernels::select_cuda_device(here[i].device);
    float* at = values[i].data();
    if (here[i].rank > 0) add(ncclSend(at, 1, ncclFloat32, 0, here[i].comm, nullptr));
    for (int r = 1; here[i].rank == 0 && r < n_ranks; ++r)
      add(ncclRecv(at + r, 1, ncclFloat32, r, here[i].comm, nullptr));
  }
  add(ncclGroupEnd());
  if (result != ncclSuccess) return result;
  result = ncclGroupStart();
  for (std::size_t i = 0; i < here.size(); ++i) {
    kernels::select_cuda_device(here[i].device);
    float* at = values[i].data();
    add(ncclAllGather(at + here[i].rank, at, 1, ncclFloat32, here[i].comm, nullptr));
  }
  add(ncclGroupEnd());
  if (result != ncclSuccess) return result;
  for (const Rank& r : here) {
    kernels::select_cuda_device(r.device);
    kernels::synchronise(nullptr);
  }
  return result;
}

// Memory for `exchange`; empty where a device has none left.
std::vector<DeviceArray<float>> values_of(std::span<const Rank> here, int n_ranks) {
  std::vector<DeviceArray<float>> values;
  try {
    for (const Rank& r : here) {
      kernels::select_cuda_device(r.device);
      values.emplace_back(static_cast<std::size_t>(n_ranks));
    }
  } catch (const std::bad_alloc&) {
    return {};
  }
  return values;
}

constexpr const char* kNoPeerAccess = "the GPUs do not reach each other's memory";

// Sums in one launch, for all ranks or for none, which is no error: ncclInvalidUsage, said before
// anything is done. After any other error NCCL has aborted the comms, and sums over them would be
// wrong. Of ranks in one thread.
ncclResult_t begin_sums(std::span<NcclComm* const> here) {
  const auto gather = [&](const std::string& why) {
    for (NcclComm* c : here) c->gather_because(why);
  };
  here[0]->enter();
  if (const std::string why = RankSum::why_not(here[0]->nccl()); !why.empty()) {
    gather(why);
    return ncclSuccess;
  }
  ncclResult_t result = ncclGroupStart();
  if (result != ncclSuccess) return result;
  for (NcclComm* c : here) {
    c->enter();
    if (result == ncclSuccess) result = c->sums().begin(c->nccl());
  }
  const ncclResult_t ended = ncclGroupEnd();
  if (result == ncclSuccess) result = ended;
  if (result == ncclInvalidUsage) {
    gather(kNoPeerAccess);
    return ncclSuccess;
  }
  if (result != ncclSuccess)
    for (NcclComm* c : here) c->abort();
  return result;
}

// The one GPU that it sees (Slurm gives each process its own), or the one with its number.
int device_of(const Processes& processes) {
  return kernels::n_cuda_devices() == 1 ? 0 : processes.rank_on_host();
}

// Of this process: "" where its machine has a GPU for it.
std::string want_of_gpu(const Processes& processes) {
  const int n_devices = kernels::n_cuda_devices();
  if (n_devices == 0) return no_device(processes.size());
  if (n_devices > device_of(processes)) return {};
  return fmt::format(
      "--tp {} asks for {} GPUs on this machine, this process sees {} (CUDA_VISIBLE_DEVICES may "
      "hide others): start fewer processes on it (mpirun --map-by ppr:{}:node), or let each see "
      "one GPU of its own",
      processes.size(), processes.rank_on_host() + 1, n_devices, n_devices);
}

// All: "" where no other process has this one's GPU. Told before NCCL is asked, which refuses such
// a job in those two ranks alone.
std::string shared_gpu(Processes& processes, int device) {
  cudaDeviceProp own{};
  const cudaError_t asked = cudaGetDeviceProperties(&own, device);
  std::vector<cudaUUID_t> all(static_cast<std::size_t>(processes.size()));
  processes.gather(std::as_bytes(std::span(&own.uuid, 1)),
                   reinterpret_cast<std::byte*>(all.data()));
  if (asked != cudaSuccess)
    return fmt::format("CUDA device {}: {}", device, cudaGetErrorString(asked));
  for (int r = 0; r < processes.size(); ++r)
    if (r != processes.rank() &&
        std::memcmp(&all[static_cast<std::size_t>(r)], &own.uuid, sizeof own.uuid) == 0)
      return fmt::format(
          "it has the same {} as rank {}, and --tp {} needs a GPU for each: start fewer processes "
          "on this machine, or let each see another one (CUDA_VISIBLE_DEVICES)",
          own.name, r, processes.size());
  return {};
}

// Rank 0's, in all.
ncclUniqueId shared_id(Processes& processes, std::string* error) {
  std::vector<ncclUniqueId> ids(static_cast<std::size_t>(processes.size()));
  ncclUniqueId own{};
  if (processes.rank() == 0)
    if (const ncclResult_t result = ncclGetUniqueId(&own); result != ncclSuccess)
      *error = cannot_connect(processes.size(), result);
  processes.gather(std::as_bytes(std::span(&own, 1)), reinterpret_cast<std::byte*>(ids.data()));
  return ids[0];
}

}  // namespace

Result<Comms> new_nccl_comms(int n_ranks) {
  CHECK(n_ranks > 0) << n_ranks;
  const int n_devices = kernels::n_cuda_devices();
  if (n_devices == 0) return tl::unexpected<Error>(Error{no_device(n_ranks)});
  if (n_devices < n_ranks)
    return fail("--tp {} asks for {} GPUs, {} here: ask for at most --tp {}", n_ranks, n_ranks,
                n_devices, n_devices);
  std::vector<ncclComm_t> of_rank(static_cast<std::size_t>(n_ranks));
  if (const ncclResult_t result = ncclCommInitAll(of_rank.data(), n_ranks, nullptr);
      result != ncclSuccess)
    return tl::unexpected<Error>(Error{cannot_connect(n_ranks, result)});
  const auto meeting = std::make_shared<Meeting>(n_ranks);
  std::vector<Rank> ranks;
  std::vector<NcclComm*> own;
  Comms comms;
  for (int r = 0; r < n_ranks; ++r) {
    ranks.push_back({r, r, of_rank[static_cast<std::size_t>(r)]});
    auto comm = std::make_unique<NcclComm>(
        r, n_ranks, r, ranks.back().comm,
        HostSide{[meeting] { meeting->meet(); },
                 [meeting, r](bool yes) { return meeting->agree(r, yes); }});
    own.push_back(comm.get());
    comms.push_back(std::move(comm));
  }
  const int device_before = kernels::current_cuda_device();
  const auto values = values_of(ranks, n_ranks);
  ncclResult_t connected =
      values.empty() ? ncclUnhandledCudaError : exchange(ranks, n_ranks, values);
  if (connected == ncclSuccess) connected = begin_sums(own);
  kernels::select_cuda_device(device_before);
  if (connected != ncclSuccess)
    return tl::unexpected<Error>(Error{cannot_connect(n_ranks, connected)});
  return comms;
}

Result<std::unique_ptr<Comm>> new_nccl_process_comm(Processes& processes) {
  ASSAY_TRY_VOID(agree(processes, want_of_gpu(processes)));
  const int rank = processes.rank(), size = processes.size(), device = device_of(processes);
  ASSAY_TRY_VOID(agree(processes, shared_gpu(processes, device)));
  kernels::select_cuda_device(device);
  std::string error;
  const ncclUniqueId id = shared_id(processes, &error);
  ASSAY_TRY_VOID(agree(processes, error));
  ncclComm_t comm = nullptr;
  if (const ncclResult_t result = ncclCommInitRank(&comm, size, id, rank); result != ncclSuccess)
    error = cannot_connect(size, result);
  ASSAY_TRY_VOID(agree(processes, error));
  auto made = std::make_unique<NcclComm>(
      rank, size, device, comm,
      HostSide{[&processes] { processes.meet(); },
               [&processes](bool yes) { return all_agree(processes, yes); }});
  const Rank own[] = {{rank, device, comm}};
  const auto values = values_of(own, size);
  if (values.empty()) error = cannot_connect(size, ncclUnhandledCudaError);
  ASSAY_TRY_VOID(agree(processes, error));
  if (const ncclResult_t result = exchange(own, size, values); result != ncclSuccess)
    error = cannot_connect(size, result);
  ASSAY_TRY_VOID(agree(processes, error));
  const std::string why = RankSum::why_not(comm);
  if (!all_agree(processes, why.empty())) {
    made->gather_because(why.empty() ? "not all ranks may" : why);
    return made;
  }
  const ncclResult_t begun = made->sums().begin(comm);
  if (begun != ncclSuccess && begun != ncclInvalidUsage) {
    error = cannot_connect(size, begun);
    made->abort();
  }
  ASSAY_TRY_VOID(agree(processes, error));
  if (!all_agree(processes, begun == ncclSuccess)) made->gather_because(kNoPeerAccess);
  return made;
}

}  // namespace assay::engine
