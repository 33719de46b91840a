#include <algorithm>
#include <cstdint>

#include "kernels/cuda_check.cuh"
#include "kernels/cuda_memory.h"
#include "kernels/roof_cuda.h"
#include "kernels/wgmma.cuh"

namespace assay::kernels {
namespace {

constexpr int kReadThreads = 512, kReadsAtOnce = 8,
              kReadBlocksEach = 4;  // blocks: of a multiprocessor

// Every word once. The sum goes where nobody looks, but the compiler cannot know that it is not 1.
__global__ void __launch_bounds__(kReadThreads)
    read_all(const uint4* data, std::size_t n, unsigned* sink) {
  const std::size_t step = static_cast<std::size_t>(gridDim.x) * kReadThreads;
  std::size_t i = static_cast<std::size_t>(blockIdx.x) * kReadThreads + threadIdx.x;
  unsigned sum = 0;
  for (; i + (kReadsAtOnce - 1) * step < n; i += kReadsAtOnce * step) {
    uint4 v[kReadsAtOnce];
#pragma unroll
    for (int k = 0; k < kReadsAtOnce; ++k) v[k] = __ldcs(data + i + k * step);
#pragma unroll
    for (int k = 0; k < kReadsAtOnce; ++k) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  for (; i < n; i += step) sum += data[i].x;
  if (sum == 1) *sink = sum;
}

constexpr int kFmaThreads = 512;

// A number in (1, 2), or its negative, in both halves.
__device__ unsigned random_pair(unsigned i) {
  unsigned h = i * 0x9E3779B9u;
  h = (h ^ h >> 15) * 0x85EBCA6Bu;
  return (h & 0x83FF83FFu) | 0x3C003C00u;
}

// n_fma: of one block.
__global__ void __launch_bounds__(kFmaThreads, 1)
    multiply_forever(int n_rounds, float* sink, unsigned long long* n_fma) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  // Four warpgroups, each its own 64 rows with both tiles (16, 128), which lie as 64 columns behind
  // 64 columns.
  constexpr int kTileBytes = 16 * 128 * 2, kTiles = 2;
  __shared__ alignas(1024) unsigned tiles[kTiles * kTileBytes / 4];
  for (unsigned i = threadIdx.x; i < kTiles * kTileBytes / 4; i += kFmaThreads)
    tiles[i] = random_pair(i);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  std::uint64_t right[kTiles];
  for (unsigned i = 0; i < kTiles; ++i)
    right[i] = describe_tile(shared_address(tiles) + i * kTileBytes, kTileBytes / 2, 1024,
                             TileLayout::kSwizzled);
  unsigned left[4];
  for (int i = 0; i < 4; ++i) left[i] = random_pair(threadIdx.x * 4 + static_cast<unsigned>(i));
  float sum[64] = {};
  for (int round = 0; round < n_rounds; ++round) {
    begin_products();
    multiply_columns(sum, left, right[0]);
    multiply_columns(sum, left, right[1]);
    close_products();
    await_products<1>();
  }
  await_products<0>();
  hold(sum);
  float total = 0;
  for (const float v : sum) total += v;
  const unsigned long long n =
      4ull * kTiles * 64 * 128 * 16 * static_cast<unsigned long long>(n_rounds);
#else
  // Sixteen warps, eight independent sums each.
  unsigned left[4], right[2];
  for (int i = 0; i < 4; ++i) left[i] = random_pair(threadIdx.x * 8 + static_cast<unsigned>(i));
  for (int i = 0; i < 2; ++i)
    right[i] = random_pair(threadIdx.x * 8 + 4 + static_cast<unsigned>(i));
  float sum[8][4] = {};
  for (int round = 0; round < n_rounds; ++round)
#pragma unroll
    for (int i = 0; i < 8; ++i) multiply_add(sum[i], left, right[0], right[1]);
  float total = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) total += sum[i][0] + sum[i][1] + sum[i][2] + sum[i][3];
  const unsigned long long n = 16ull * 8 * 16 * 8 * 16 * static_cast<unsigned long long>(n_rounds);
#endif
  if (total == 1) *sink = total;
  if (blockIdx.x == 0 && threadIdx.x == 0) *n_fma = n;
}

class Clock {
 public:
  Clock() {
    CUDA_CHECK(cudaEventCreate(&begin_));
    CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~Clock() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  template <class Work>
  double seconds(CudaStream stream, const Work& work) const {
    CUDA_CHECK(cudaEventRecord(begin_, stream));
    work();
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cudaEventRecord(end_, stream));
    CUDA_CHECK(cudaEventSynchronize(end_));
    float ms = 0;
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    return static_cast<double>(ms) * 1e-3;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

double read_bytes_per_s_cuda() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  constexpr int kPasses = 12;
  const DeviceBytes data(kBytes);
  const DeviceArray<unsigned> sink(1);
  const CudaStreamOwner stream;
  const Clock clock;
  const auto passes = [&](int n) {
    for (int i = 0; i < n; ++i)
      read_all<<<kReadBlocksEach * n_multiprocessors(), kReadThreads, 0, stream.get()>>>(
          static_cast<const uint4*>(data.data()), kBytes / sizeof(uint4), sink.data());
  };
  CUDA_CHECK(cudaMemsetAsync(data.data(), 1, kBytes, stream.get())) << kBytes;
  clock.seconds(stream.get(), [&] { passes(1); });
  return static_cast<double>(kBytes) * kPasses /
         clock.seconds(stream.get(), [&] { passes(kPasses); });
}

double half_fma_per_s_cuda() {
  constexpr int kRounds = 8192, kTries = 3;
  const DeviceArray<float> sink(1);
  const DeviceArray<unsigned long long> n_fma(1);
  const CudaStreamOwner stream;
  const Clock clock;
  const int n_blocks = n_multiprocessors();
  double least = 0;
  for (int i = 0; i <= kTries; ++i) {
    const double s = clock.seconds(stream.get(), [&] {
      multiply_forever<<<n_blocks, kFmaThreads, 0, stream.get()>>>(kRounds, sink.data(),
                                                                   n_fma.data());
    });
    if (i > 0) least = i == 1 ? s : std::min(least, s);
  }
  return static_cast<double>(n_fma.host(1, stream.get())[0]) * n_blocks / least;
}

}  // namespace assay::kernels
