#include "kernels/cuda_check.cuh"
#include "kernels/cuda_memory.h"

namespace assay::kernels {

int n_cuda_devices() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

CudaDevice cuda_device() {
  int id = 0;
  CUDA_CHECK(cudaGetDevice(&id));
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, id));
  CudaDevice device{properties.name, properties.major, properties.minor, 0, 0};
  CUDA_CHECK(cudaMemGetInfo(&device.free_bytes, &device.total_bytes));
  return device;
}

void copy_to_device(void* device, const void* host, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(device, host, n_bytes, cudaMemcpyHostToDevice, stream)) << n_bytes;
  CUDA_CHECK(cudaStreamSynchronize(stream));
}

void copy_to_host(void* host, const void* device, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(host, device, n_bytes, cudaMemcpyDeviceToHost, stream)) << n_bytes;
  CUDA_CHECK(cudaStreamSynchronize(stream)) << n_bytes << " bytes";
}

void copy_on_device(void* to, const void* from, std::size_t n_bytes, CudaStream stream) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToDevice, stream)) << n_bytes;
}

void synchronise(CudaStream stream) { CUDA_CHECK(cudaStreamSynchronize(stream)); }

void synchronise_device() { CUDA_CHECK(cudaDeviceSynchronize()); }

CudaStreamOwner::CudaStreamOwner() {
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}
CudaStreamOwner::~CudaStreamOwner() { cudaStreamDestroy(stream_); }

DeviceBytes::DeviceBytes(std::size_t n_bytes) : n_(n_bytes) {
  if (n_bytes > 0) CUDA_CHECK(cudaMalloc(&data_, n_bytes)) << n_bytes << " bytes";
}
DeviceBytes::~DeviceBytes() { cudaFree(data_); }

}  // namespace assay::kernels
