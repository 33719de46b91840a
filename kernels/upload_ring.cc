#include "kernels/upload_ring.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/fault_in.h"
#include "base/thread_pool.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20, kSlots = 3;
constexpr std::size_t kPiece = kMiB / 4;  // that a thread reads at a time
constexpr int kMaxThreads = 8;            // enough for the fastest bus

struct Slot {
  PinnedBytes bytes;
  CudaEvent sent;
};

}  // namespace

struct UploadRing::Impl {
  explicit Impl(std::size_t slot_bytes) {
    for (Slot& s : slots) s.bytes = PinnedBytes(slot_bytes);
  }

  Slot& slot() { return slots[current]; }
  std::byte* end() { return device + used; }  // on the device, of what the slot holds

  // The slot's bytes go, and the next slot is waited for.
  void send() {
    if (used == 0) return;
    copy_to_device_later(device, slot().bytes, used, stream.get());
    slot().sent.record(stream.get());
    current = (current + 1) % kSlots;
    slot().sent.wait();
    used = 0;
  }

  void fill(const std::byte* host, std::size_t n) {
    std::byte* to = slot().bytes.data() + used;
    const auto read = [&](std::size_t first, std::size_t size) {
      if (size >= kPiece / 4) fault_in({host + first, size});
      std::memcpy(to + first, host + first, size);
    };
    if (n < 2 * kPiece) {  // not worth waking others for
      read(0, n);
    } else {
      if (!pool) pool.emplace(std::min(kMaxThreads, n_usable_cores()));
      pool->parallel_for(static_cast<int>((n + kPiece - 1) / kPiece), [&](int i) {
        const std::size_t first = static_cast<std::size_t>(i) * kPiece;
        read(first, std::min(kPiece, n - first));
      });
    }
    used += n;
  }

  CudaStreamOwner stream;
  std::array<Slot, kSlots> slots;
  std::size_t current = 0, used = 0;  // bytes of the current slot
  std::byte* device = nullptr;        // where its first byte goes
  std::optional<ThreadPool> pool;
};

UploadRing::UploadRing(std::size_t n_bytes)
    : impl_(std::make_unique<Impl>(
          std::clamp((n_bytes / kSlots + kMiB - 1) / kMiB * kMiB, kMiB, kMaxSlotBytes))) {}

UploadRing::~UploadRing() = default;

void UploadRing::copy(void* device, const void* host, std::size_t n_bytes) {
  Impl& m = *impl_;
  auto* to = static_cast<std::byte*>(device);
  const auto* from = static_cast<const std::byte*>(host);
  const std::size_t slot_bytes = m.slot().bytes.size();
  if (m.used > 0) {
    const bool follows = to >= m.end() && static_cast<std::size_t>(to - m.end()) < kMaxGap &&
                         m.used + static_cast<std::size_t>(to - m.end()) < slot_bytes;
    if (follows) {
      const auto gap = static_cast<std::size_t>(to - m.end());
      std::memset(m.slot().bytes.data() + m.used, 0, gap);
      m.used += gap;
    } else {
      m.send();
    }
  }
  while (n_bytes > 0) {
    if (m.used == 0) m.device = to;
    const std::size_t n = std::min(n_bytes, slot_bytes - m.used);
    m.fill(from, n);
    to += n;
    from += n;
    n_bytes -= n;
    if (m.used == slot_bytes) m.send();
  }
}

void UploadRing::finish() {
  impl_->send();
  synchronise(impl_->stream.get());
}

}  // namespace assay::kernels
