// Host memory to a device through a ring of pinned buffers: while one travels, the next is filled
// by several threads, which also take the page faults of a mapped file. From pageable memory the
// driver copies through a buffer of its own, on one thread, and the bus waits for it.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/cuda_memory.h"

namespace assay::kernels {

class UploadRing {
 public:
  static constexpr std::size_t kMaxSlotBytes = std::size_t{16} << 20;

  // Pinned memory for about n_bytes to come: a third of them to a slot, 1 to 16 MiB.
  explicit UploadRing(std::size_t n_bytes);
  ~UploadRing();  // without finish, the last bytes may be lost

  // Returns when `host` has been read. Calls whose destinations follow each other, with less than
  // kMaxGap between, travel together; a gap is zeroed.
  void copy(void* device, const void* host, std::size_t n_bytes);
  static constexpr std::size_t kMaxGap = 256;
  // Returns when everything is on the device.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::kernels
