#include <atomic>
#include <mutex>
#include <new>

#include "kernels/cuda_check.cuh"
#include "kernels/cuda_memory.h"
#include "kernels/current_cuda_device.h"
#include "kernels/driver_limits.h"
#include "kernels/graph_memory.h"

namespace assay::kernels {
namespace {

std::atomic<std::size_t> n_allocations{0};

std::mutex making_graph;
thread_local std::size_t graph_bytes = 0;

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

bool is_refused(std::atomic<int>& n_left) {
  int n = n_left;
  while (n > 0 && !n_left.compare_exchange_weak(n, n - 1)) {
  }
  return n == 0;
}

// Whether a call that takes memory found some. If not, no later call is blamed for it.
bool found_memory(cudaError_t error, const std::string& what) {
  if (error != cudaErrorMemoryAllocation) {
    CUDA_CHECK(error) << what;
    return true;
  }
  cudaGetLastError();
  return false;
}
std::string bytes_text(std::size_t n) { return std::to_string(n) + " bytes"; }

}  // namespace

DriverLimits& driver_limits() {
  static DriverLimits limits;
  return limits;
}

std::size_t n_cuda_allocations() { return n_allocations; }

int n_cuda_devices() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

int current_cuda_device() {
  int id = 0;
  CUDA_CHECK(cudaGetDevice(&id));
  return id;
}

CudaDevice cuda_device() {
  const int id = current_cuda_device();
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, id));
  CudaDevice device{properties.name, properties.major, properties.minor, 0, 0};
  CUDA_CHECK(cudaMemGetInfo(&device.free_bytes, &device.total_bytes));
  return device;
}

__global__ void any_kernel() {}
bool has_code_for_cuda_device() {
  cudaFuncAttributes attributes;
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(any_kernel));
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
      error == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError();  // it is told
    return false;
  }
  CUDA_CHECK(error);
  return true;
}

void select_cuda_device(int id) { CUDA_CHECK(cudaSetDevice(id)) << "device " << id; }

void copy_to_device(void* device, const void* host, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(device, host, n_bytes, cudaMemcpyHostToDevice, stream)) << n_bytes;
  CUDA_CHECK(cudaStreamSynchronize(stream));
}

void copy_to_device_later(void* device, const PinnedBytes& host, std::size_t n_bytes,
                          CudaStream stream) {
  CHECK(n_bytes <= host.size()) << n_bytes << " of " << host.size();
  CUDA_CHECK(cudaMemcpyAsync(device, host.data(), n_bytes, cudaMemcpyHostToDevice, stream))
      << n_bytes;
}

void copy_to_host_later(const PinnedBytes& host, const void* device, std::size_t n_bytes,
                        CudaStream stream) {
  CHECK(n_bytes <= host.size()) << n_bytes << " of " << host.size();
  CUDA_CHECK(cudaMemcpyAsync(host.data(), device, n_bytes, cudaMemcpyDeviceToHost, stream))
      << n_bytes;
}

void copy_to_host(void* host, const void* device, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(host, device, n_bytes, cudaMemcpyDeviceToHost, stream)) << n_bytes;
  CUDA_CHECK(cudaStreamSynchronize(stream)) << n_bytes << " bytes";
}

void copy_on_device(void* to, const void* from, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToDevice, stream)) << n_bytes;
}

void synchronise(CudaStream stream) { CUDA_CHECK(cudaStreamSynchronize(stream)); }

CudaStreamOwner::CudaStreamOwner() {
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}
CudaStreamOwner::~CudaStreamOwner() { cudaStreamDestroy(stream_); }

DeviceBytes::DeviceBytes(std::size_t n_bytes) : n_(n_bytes) {
  if (n_bytes == 0) return;
  ++n_allocations;
  if (!found_memory(cudaMalloc(&data_, n_bytes), bytes_text(n_bytes))) throw std::bad_alloc();
}
DeviceBytes::~DeviceBytes() { cudaFree(data_); }

PinnedBytes::PinnedBytes(std::size_t n_bytes) : n_(n_bytes) {
  if (n_bytes == 0) return;
  ++n_allocations;
  if (is_refused(driver_limits().pinned) ||
      !found_memory(cudaMallocHost(&data_, n_bytes), bytes_text(n_bytes)))
    throw NoPinnedMemory(n_bytes);
}
PinnedBytes::~PinnedBytes() { cudaFreeHost(data_); }

CudaEvent::CudaEvent() { CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
CudaEvent::~CudaEvent() { cudaEventDestroy(event_); }
void CudaEvent::record(CudaStream stream) { CUDA_CHECK(cudaEventRecord(event_, stream)); }
void CudaEvent::wait() const { CUDA_CHECK(cudaEventSynchronize(event_)); }

void RecordedGraph::begin(CudaStream stream) {
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

std::optional<RecordedGraph> RecordedGraph::end(CudaStream stream) {
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  RecordedGraph recorded;
  bool is_made = false;
  {
    // One at a time, and with what its first launch would take: so what is less free is this one's.
    const std::lock_guard lock(making_graph);
    const std::size_t before = free_bytes();
    is_made = !is_refused(driver_limits().graphs) &&
              found_memory(cudaGraphInstantiate(&recorded.exec_, graph, 0), "a graph") &&
              found_memory(cudaGraphUpload(recorded.exec_, stream), "a graph");
    const std::size_t after = free_bytes();
    if (is_made && after < before) graph_bytes += before - after;
  }
  CUDA_CHECK(cudaGraphDestroy(graph));
  if (!is_made) return std::nullopt;
  return recorded;
}

std::size_t recorded_graph_bytes() { return graph_bytes; }

RecordedGraph::~RecordedGraph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

void RecordedGraph::launch(CudaStream stream) const { CUDA_CHECK(cudaGraphLaunch(exec_, stream)); }

}  // namespace assay::kernels
