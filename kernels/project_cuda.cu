#include "kernels/cuda_check.cuh"
#include "kernels/project_cuda.h"
#include "kernels/row_dot.cuh"

namespace assay::kernels {
namespace {

constexpr int kWarps = 4;  // of a block, each with a row

dim3 grid_of(int n_rows, int n_tokens) { return dim3((n_rows + kWarps - 1) / kWarps, n_tokens); }

__device__ int warp_row() { return blockIdx.x * kWarps + threadIdx.y; }

__device__ float silu(float v) { return v / (1.0f + expf(-v)); }

__global__ void project(DeviceMatrix m, const float* x, int x_stride, float* y, int y_stride,
                        bool accumulate) {
  const int row = warp_row();
  if (row >= m.n_rows) return;
  const float sum = row_dot(m, row, x + static_cast<size_t>(blockIdx.y) * x_stride, threadIdx.x);
  if (threadIdx.x != 0) return;
  float& out = y[static_cast<size_t>(blockIdx.y) * y_stride + row];
  out = accumulate ? out + sum : sum;
}

__global__ void project_heads(HeadsCudaArgs a) {
  const int i = warp_row(), token = blockIdx.y;
  if (i >= a.n_heads * a.n_rows) return;
  const int head = i / a.n_rows, row = i % a.n_rows;
  const float* w = a.w + static_cast<size_t>(i) * a.n_cols;
  const float* x = a.x + static_cast<size_t>(token) * a.x_token_stride + head * a.x_head_stride;
  float sum = 0;
  for (int c = threadIdx.x; c < a.n_cols; c += 32) sum = fmaf(w[c], x[c], sum);
  sum = warp_sum(sum);
  if (threadIdx.x == 0)
    a.y[static_cast<size_t>(token) * a.y_token_stride + head * a.y_head_stride + row] = sum;
}

__global__ void swiglu(DeviceMatrix gate, DeviceMatrix up, const float* x, int x_stride, float* h) {
  const int row = warp_row();
  if (row >= gate.n_rows) return;
  x += static_cast<size_t>(blockIdx.y) * x_stride;
  const float g = row_dot(gate, row, x, threadIdx.x), u = row_dot(up, row, x, threadIdx.x);
  if (threadIdx.x == 0) h[static_cast<size_t>(blockIdx.y) * gate.n_rows + row] = silu(g) * u;
}

__global__ void expert_gate_up(MoeCudaArgs a) {
  const int row = warp_row(), slot = blockIdx.y;
  if (row >= a.width) return;
  const DeviceMatrix* e = a.experts + 3 * a.expert[slot];
  const float* x = a.x + static_cast<size_t>(slot / a.top_k) * a.hidden;
  const float g = row_dot(e[0], row, x, threadIdx.x), u = row_dot(e[1], row, x, threadIdx.x);
  if (threadIdx.x == 0) a.h[static_cast<size_t>(slot) * a.width + row] = silu(g) * u;
}

__global__ void expert_down(MoeCudaArgs a) {
  const int row = warp_row(), token = blockIdx.y;
  if (row >= a.hidden) return;
  float sum = 0;
  for (int k = 0; k < a.top_k; ++k) {
    const int slot = token * a.top_k + k;
    const DeviceMatrix& down = a.experts[3 * a.expert[slot] + 2];
    const float* h = a.h + static_cast<size_t>(slot) * a.width;
    sum = fmaf(a.weight[slot], row_dot(down, row, h, threadIdx.x), sum);
  }
  if (threadIdx.x != 0) return;
  const size_t i = static_cast<size_t>(token) * a.hidden + row;
  a.residual[i] = a.residual[i] + sum + a.shared[i];
}

}  // namespace

void project_cuda(const DeviceMatrix& m, const float* x, int x_stride, int n_tokens, float* y,
                  int y_stride, bool accumulate, CudaStream stream) {
  CHECK(n_tokens > 0 && n_tokens < 65536) << n_tokens;
  project<<<grid_of(m.n_rows, n_tokens), dim3(32, kWarps), 0, stream>>>(m, x, x_stride, y, y_stride,
                                                                        accumulate);
  CUDA_CHECK(cudaGetLastError()) << m.n_rows << " x " << m.n_cols << ", " << n_tokens << " tokens";
}

void project_heads_cuda(const HeadsCudaArgs& a, CudaStream stream) {
  CHECK(a.n_tokens > 0 && a.n_tokens < 65536) << a.n_tokens;
  project_heads<<<grid_of(a.n_heads * a.n_rows, a.n_tokens), dim3(32, kWarps), 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.n_heads << " heads, " << a.n_rows << " x " << a.n_cols;
}

void swiglu_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, const float* x, int x_stride,
                 int n_tokens, float* h, CudaStream stream) {
  CHECK(n_tokens > 0 && n_tokens < 65536) << n_tokens;
  swiglu<<<grid_of(gate.n_rows, n_tokens), dim3(32, kWarps), 0, stream>>>(gate, up, x, x_stride, h);
  CUDA_CHECK(cudaGetLastError()) << gate.n_rows << " x " << gate.n_cols;
}

void moe_cuda(const MoeCudaArgs& a, CudaStream stream) {
  CHECK(a.n_tokens > 0 && a.n_tokens * a.top_k < 65536) << a.n_tokens << " x " << a.top_k;
  expert_gate_up<<<grid_of(a.width, a.n_tokens * a.top_k), dim3(32, kWarps), 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.width << " x " << a.hidden;
  expert_down<<<grid_of(a.hidden, a.n_tokens), dim3(32, kWarps), 0, stream>>>(a);
  CUDA_CHECK(cudaGetLastError()) << a.hidden << " x " << a.width;
}

}  // namespace assay::kernels
