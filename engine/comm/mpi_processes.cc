#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>

#include "base/check.h"
#include "engine/comm/processes.h"

namespace assay::engine {
namespace {

constexpr int kTag = 0;
constexpr std::size_t kMaxPieceBytes = std::size_t{1} << 30;  // MPI counts in int

// piece(first, n) for every piece of so many bytes.
template <class Piece>
void by_pieces(std::size_t n_bytes, const Piece& piece) {
  for (std::size_t at = 0; at < n_bytes; at += kMaxPieceBytes)
    piece(at, static_cast<int>(std::min(kMaxPieceBytes, n_bytes - at)));
}

// What MPI itself finds wrong ends the job: its default, with its own message.
class MpiProcesses final : public Processes {
 public:
  MpiProcesses() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm of_host = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &of_host);
    MPI_Comm_rank(of_host, &rank_on_host_);
    MPI_Comm_free(&of_host);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int rank_on_host() const override { return rank_on_host_; }

  void send(int to, std::span<const std::byte> message) override {
    const std::uint64_t n_bytes = message.size();
    MPI_Send(&n_bytes, 1, MPI_UINT64_T, to, kTag, MPI_COMM_WORLD);
    by_pieces(message.size(), [&](std::size_t first, int n) {
      MPI_Send(message.data() + first, n, MPI_BYTE, to, kTag, MPI_COMM_WORLD);
    });
  }
  std::vector<std::byte> receive(int from) override {
    wait_for(from);
    std::uint64_t n_bytes = 0;
    MPI_Recv(&n_bytes, 1, MPI_UINT64_T, from, kTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    std::vector<std::byte> message(n_bytes);
    by_pieces(message.size(), [&](std::size_t first, int n) {
      MPI_Recv(message.data() + first, n, MPI_BYTE, from, kTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    });
    return message;
  }
  void meet() override { MPI_Barrier(MPI_COMM_WORLD); }
  void gather(std::span<const std::byte> own, std::byte* parts) override {
    CHECK(own.size() <= std::numeric_limits<int>::max()) << own.size();
    const int n = static_cast<int>(own.size());
    MPI_Allgather(own.data(), n, MPI_BYTE, parts, n, MPI_BYTE, MPI_COMM_WORLD);
  }
  void leave() override { MPI_Finalize(); }
  void abandon(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  // MPI_Recv would keep a core busy for as long as rank 0 has nothing to ask. The next step of a
  // reply follows within these milliseconds, so that it never waits for a sleeper.
  static void wait_for(int from) {
    using Clock = std::chrono::steady_clock;
    const auto patient_from = Clock::now() + std::chrono::milliseconds(5);
    for (int there = 0;;) {
      MPI_Iprobe(from, kTag, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
      if (there != 0) return;
      if (Clock::now() < patient_from)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

  int rank_ = 0, size_ = 1, rank_on_host_ = 0;
};

}  // namespace

// Several threads of rank 0 ask, one at a time (RankGroup::run).
Result<std::unique_ptr<Processes>> join_processes() {
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  auto processes = std::make_unique<MpiProcesses>();
  if (provided >= MPI_THREAD_SERIALIZED) return processes;
  processes->leave();
  return fail(
      "this MPI allows its calls on one thread only, expected MPI_THREAD_SERIALIZED: "
      "install an MPI with threads (Debian's Open MPI has them)");
}

}  // namespace assay::engine
