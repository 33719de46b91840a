// Arrays that a step uploads, one behind the other in pinned memory and on the device.
#pragma once

#include <span>

#include "base/check.h"
#include "kernels/cuda_memory.h"

namespace assay::kernels {

class StepUpload {
 public:
  // Room for n values of T each, 16-byte aligned; the host's, to be filled.
  template <class T>
  std::span<T> add(std::size_t n, const T*& device) {
    const std::size_t at = used_;
    used_ += padded<T>(n);
    CHECK(used_ <= host_.size()) << used_ << " of " << host_.size();
    device = reinterpret_cast<const T*>(static_cast<std::byte*>(device_.data()) + at);
    return {reinterpret_cast<T*>(host_.data() + at), n};
  }
  // Bytes that `add` takes.
  template <class T>
  static constexpr std::size_t padded(std::size_t n) {
    return (n * sizeof(T) + 15) / 16 * 16;
  }
  void reserve(std::size_t n_bytes, DeviceBudget& budget) {
    if (budget.allocates()) host_ = PinnedBytes(n_bytes);
    device_ = budget.bytes(n_bytes);
  }
  void clear() { used_ = 0; }
  void send(CudaStream stream) const { copy_to_device_later(device_.data(), host_, used_, stream); }

 private:
  PinnedBytes host_;
  DeviceBytes device_;
  std::size_t used_ = 0;
};

}  // namespace assay::kernels
