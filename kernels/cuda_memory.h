// Device memory, streams and what a device is, for code that includes no CUDA header.
#pragma once

#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace assay::kernels {

using CudaStream = CUstream_st*;  // cudaStream_t

struct CudaDevice {
  std::string name;          // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;  // compute capability
  std::size_t free_bytes = 0, total_bytes = 0;
};
int n_cuda_devices();      // 0 where there is no driver, or no device
CudaDevice cuda_device();  // the current one
// Whether this build has code that the current device runs (CMAKE_CUDA_ARCHITECTURES).
bool has_code_for_cuda_device();
// The calling thread's from now on: what it allocates and launches is there. 0 where a thread has
// selected none.
void select_cuda_device(int id);
// Device and pinned memory that this process has asked the driver for so far, in requests. Each may
// wait for the device, so none belongs into a step.
std::size_t n_cuda_allocations();

class PinnedBytes;

// A copy into or out of pageable memory returns when the bytes are there.
void copy_to_device(void* device, const void* host, std::size_t n_bytes, CudaStream stream);
// From pinned memory, which must stay as it is until the stream has passed the copy.
void copy_to_device_later(void* device, const PinnedBytes& host, std::size_t n_bytes,
                          CudaStream stream);
// Into pinned memory: there once the stream has passed the copy.
void copy_to_host_later(const PinnedBytes& host, const void* device, std::size_t n_bytes,
                        CudaStream stream);
void copy_to_host(void* host, const void* device, std::size_t n_bytes, CudaStream stream);
void copy_on_device(void* to, const void* from, std::size_t n_bytes, CudaStream stream);
void synchronise(CudaStream stream);

class CudaStreamOwner {
 public:
  CudaStreamOwner();
  ~CudaStreamOwner();
  CudaStreamOwner(const CudaStreamOwner&) = delete;
  CudaStreamOwner& operator=(const CudaStreamOwner&) = delete;
  CudaStream get() const { return stream_; }

 private:
  CudaStream stream_;
};

class DeviceBytes {
 public:
  DeviceBytes() = default;
  explicit DeviceBytes(std::size_t n_bytes);  // uninitialised; std::bad_alloc where no room is left
  ~DeviceBytes();
  DeviceBytes(DeviceBytes&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), n_(std::exchange(o.n_, 0)) {}
  DeviceBytes& operator=(DeviceBytes&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(n_, o.n_);
    return *this;
  }
  void* data() const { return data_; }
  std::size_t size() const { return n_; }

 private:
  void* data_ = nullptr;
  std::size_t n_ = 0;
};

class NoPinnedMemory : public std::bad_alloc {
 public:
  explicit NoPinnedMemory(std::size_t n) : n_bytes(n) {}
  const char* what() const noexcept override { return "no pinned host memory"; }
  const std::size_t n_bytes;  // that were asked for
};

// Host memory that the device copies from without a detour.
class PinnedBytes {
 public:
  PinnedBytes() = default;
  explicit PinnedBytes(std::size_t n_bytes);  // uninitialised; NoPinnedMemory where there is none
  ~PinnedBytes();
  PinnedBytes(PinnedBytes&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), n_(std::exchange(o.n_, 0)) {}
  PinnedBytes& operator=(PinnedBytes&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(n_, o.n_);
    return *this;
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t size() const { return n_; }

 private:
  void* data_ = nullptr;
  std::size_t n_ = 0;
};

// A place on a stream, for the host to wait for.
class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  void record(CudaStream stream);
  void wait() const;  // until the stream has passed the last record; at once if there was none

 private:
  CUevent_st* event_ = nullptr;
};

// What is launched on a stream between begin and end is recorded instead of run, and can then be
// run again and again in one launch, with the same pointers. Nothing in between may allocate, copy
// from pageable memory or wait.
class RecordedGraph {
 public:
  static void begin(CudaStream stream);
  // None where the device has no memory for it; then nothing has run.
  static std::optional<RecordedGraph> end(CudaStream stream);
  ~RecordedGraph();
  RecordedGraph(RecordedGraph&& o) noexcept : exec_(std::exchange(o.exec_, nullptr)) {}
  RecordedGraph& operator=(RecordedGraph&& o) noexcept {
    std::swap(exec_, o.exec_);
    return *this;
  }
  void launch(CudaStream stream) const;

 private:
  RecordedGraph() = default;
  CUgraphExec_st* exec_ = nullptr;
};

// Of a trivially copyable T.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t n) : bytes_(n * sizeof(T)), n_(n) {}
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    if (n_ > 0) copy_to_device(data(), host.data(), n_ * sizeof(T), nullptr);
  }
  T* data() const { return static_cast<T*>(bytes_.data()); }
  std::size_t size() const { return n_; }
  std::vector<T> host(std::size_t n, CudaStream stream) const {
    std::vector<T> out(n);
    if (n > 0) copy_to_host(out.data(), data(), n * sizeof(T), stream);
    return out;
  }
  std::vector<T> host() const { return host(n_, nullptr); }

 private:
  DeviceBytes bytes_;
  std::size_t n_ = 0;
};

// Adds up device memory, allocating it or not: what a thing will take is said by the very code that
// takes it.
class DeviceBudget {
 public:
  enum class Mode { kCount, kAllocate };
  explicit DeviceBudget(Mode mode) : mode_(mode) {}

  bool allocates() const { return mode_ == Mode::kAllocate; }
  std::size_t n_bytes() const { return n_bytes_; }
  DeviceBytes bytes(std::size_t n) {
    count(n);
    return allocates() ? DeviceBytes(n) : DeviceBytes();
  }
  template <class T>
  DeviceArray<T> array(std::size_t n) {
    count(n * sizeof(T));
    return allocates() ? DeviceArray<T>(n) : DeviceArray<T>();
  }

 private:
  static constexpr std::size_t kGrain = 512;  // of the driver's own allocator
  void count(std::size_t n) { n_bytes_ += (n + kGrain - 1) / kGrain * kGrain; }

  const Mode mode_;
  std::size_t n_bytes_ = 0;
};

}  // namespace assay::kernels
