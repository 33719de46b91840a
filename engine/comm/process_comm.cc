// Ranks in host memory, a process each.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/check.h"
#include "engine/comm/comm.h"
#include "engine/comm/processes.h"

namespace assay::engine {
namespace {

class ProcessComm final : public Comm {
 public:
  explicit ProcessComm(Processes& processes) : processes_(processes) {}

  int rank() const override { return processes_.rank(); }
  int size() const override { return processes_.size(); }
  void enter() override {}
  void meet() override { processes_.meet(); }
  bool agree(bool yes) override { return all_agree(processes_, yes); }
  void reserve(std::size_t) override {}

  // Gathered and added in order of rank, as between threads: MPI's own sums go by the size of the
  // message and by the machines.
  void sum(float* values, std::size_t n, kernels::CudaStream stream) override {
    CHECK(stream == nullptr) << "these ranks have no device";
    const auto n_ranks = static_cast<std::size_t>(size());
    parts_.resize(std::max(parts_.size(), n * n_ranks));
    processes_.gather(std::as_bytes(std::span(values, n)),
                      reinterpret_cast<std::byte*>(parts_.data()));
    for (std::size_t i = 0; i < n; ++i) {
      float total = parts_[i];
      for (std::size_t r = 1; r < n_ranks; ++r) total += parts_[r * n + i];
      values[i] = total;
    }
  }

  void gather(std::span<const float* const> rows, std::span<const int> cuts, float* whole,
              kernels::CudaStream stream) override {
    CHECK(stream == nullptr) << "these ranks have no device";
    if (rank() > 0) {
      processes_.send(0, bytes_of(rows, part_width(cuts, rank())));
      return;
    }
    const auto put = [&](int r, std::size_t row, const float* values) {
      std::copy_n(
          values, part_width(cuts, r),
          whole + row * static_cast<std::size_t>(cuts.back()) + cuts[static_cast<std::size_t>(r)]);
    };
    for (std::size_t i = 0; i < rows.size(); ++i) put(0, i, rows[i]);
    for (int r = 1; r < size(); ++r) {
      const std::vector<std::byte> part = processes_.receive(r);
      const std::size_t n = part_width(cuts, r);
      CHECK(part.size() == rows.size() * n * sizeof(float)) << part.size() << " of rank " << r;
      const auto* values = reinterpret_cast<const float*>(part.data());
      for (std::size_t i = 0; i < rows.size(); ++i) put(r, i, values + i * n);
    }
  }

 private:
  static std::vector<std::byte> bytes_of(std::span<const float* const> rows, std::size_t n) {
    std::vector<std::byte> bytes;
    for (const float* row : rows) {
      const auto more = std::as_bytes(std::span(row, n));
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  }

  Processes& processes_;
  std::vector<float> parts_;  // (size, n)
};

}  // namespace

Result<std::unique_ptr<Comm>> new_process_comm(Processes& processes) {
  return std::make_unique<ProcessComm>(processes);
}

Result<void> agree(Processes& processes, const std::string& error) {
  constexpr std::size_t kMaxBytes = 1024;
  std::array<char, kMaxBytes> own{};
  std::memcpy(own.data(), error.data(), std::min(error.size(), kMaxBytes - 1));
  std::vector<char> all(kMaxBytes * static_cast<std::size_t>(processes.size()));
  processes.gather(std::as_bytes(std::span(own)), reinterpret_cast<std::byte*>(all.data()));
  for (std::size_t rank = 0; rank * kMaxBytes < all.size(); ++rank)
    if (const char* message = all.data() + rank * kMaxBytes; *message != '\0')
      return fail("rank {} of {}: {}", rank, processes.size(), message);
  return {};
}

bool all_agree(Processes& processes, bool yes) {
  const char own = yes ? 1 : 0;
  std::vector<char> all(static_cast<std::size_t>(processes.size()));
  processes.gather(std::as_bytes(std::span(&own, 1)), reinterpret_cast<std::byte*>(all.data()));
  return std::all_of(all.begin(), all.end(), [](char said) { return said != 0; });
}

}  // namespace assay::engine
