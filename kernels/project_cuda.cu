#include <algorithm>
#include <vector>

#include "kernels/cuda_check.cuh"
#include "kernels/few_rows_cuda.h"
#include "kernels/gptq_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/row_dot.cuh"

namespace assay::kernels {
namespace {

bool share_a_launch(const DeviceMatrix& a, const DeviceMatrix& b, std::size_t shared_bytes) {
  if (is_for_gptq_cuda(a, shared_bytes, false)) return are_alike(a, b);
  if (is_for_gptq_cuda(b, shared_bytes, false)) return false;
  return are_of_one_row_form(a, b);
}

// Gate and up.
bool are_for_gptq_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, std::size_t shared_bytes) {
  return are_alike(gate, up) && is_for_gptq_cuda(gate, shared_bytes, true);
}

// Of products that share one.
void launch(std::span<const DeviceProduct> products, const ProductInput& in,
            std::size_t shared_bytes, CudaStream stream) {
  if (is_for_gptq_cuda(*products[0].matrix, shared_bytes, false))
    gptq_cuda({.products = products,
               .x = in.x,
               .x_stride = in.x_stride,
               .n_tokens = in.n_tokens,
               .accumulate = in.accumulate,
               .shared_bytes = shared_bytes},
              stream);
  else
    project_by_row(products, in, stream);
}

constexpr int kHeadWarps = 4;  // of a block

// A warp has kRows rows of one head, kStep values of each in every lane at a time, the first of
// them before the launch ahead has ended; and kTokens of the tokens, so that those share what is
// read. Each sum is a chain in every lane and a tree over them, whatever the three are.
template <int kRows, int kTokens, int kStep>
__global__ void __launch_bounds__(32 * kHeadWarps) project_heads(HeadsCudaArgs a) {
  const int lane = threadIdx.x;
  const int first =
      (static_cast<int>(blockIdx.x) * kHeadWarps + static_cast<int>(threadIdx.y)) * kRows;
  const bool works = first < a.n_heads * a.n_rows;
  const float* w = a.w + static_cast<size_t>(first) * a.n_cols;
  float values[kRows][kStep];
  const auto load = [&](int first_col) {
#pragma unroll
    for (int k = 0; k < kStep; ++k)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int c = first_col + 32 * k + lane;
        values[r][k] = c < a.n_cols ? __ldg(w + static_cast<size_t>(r) * a.n_cols + c) : 0;
      }
  };
  if (works) load(0);
  await_previous();
  let_next_begin();
  if (!works) return;
  const int head = first / a.n_rows, row = first % a.n_rows;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  const int n = min(kTokens, a.n_tokens - first_token);
  const float* x =
      a.x + static_cast<size_t>(first_token) * a.x_token_stride + head * a.x_head_stride;
  float sum[kTokens][kRows] = {};
  for (int col = 0;;) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (t >= n) break;
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
        const int c = col + 32 * k + lane;
        const float of_x = c < a.n_cols ? x[static_cast<size_t>(t) * a.x_token_stride + c] : 0;
#pragma unroll
        for (int r = 0; r < kRows; ++r) sum[t][r] = fmaf(values[r][k], of_x, sum[t][r]);
      }
    }
    col += 32 * kStep;
    if (col >= a.n_cols) break;
    load(col);
  }
  float* y =
      a.y + static_cast<size_t>(first_token) * a.y_token_stride + head * a.y_head_stride + row;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (t >= n) break;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float total = warp_sum(sum[t][r]);
      if (lane == 0) y[static_cast<size_t>(t) * a.y_token_stride + r] = total;
    }
  }
}

template <int kRows, int kTokens, int kStep>
void launch_heads(const HeadsCudaArgs& a, CudaStream stream) {
  const int rows_of_block = kHeadWarps * kRows;
  overlapped(project_heads<kRows, kTokens, kStep>,
             dim3((a.n_heads * a.n_rows + rows_of_block - 1) / rows_of_block,
                  (a.n_tokens + kTokens - 1) / kTokens),
             dim3(32, kHeadWarps), 0, stream, a);
}
template <int kRows, int kTokens>
void launch_heads(const HeadsCudaArgs& a, CudaStream stream) {
  if (a.n_cols <= 32 * 8)
    launch_heads<kRows, kTokens, 8>(a, stream);
  else
    launch_heads<kRows, kTokens, 16>(a, stream);
}

}  // namespace

void project_cuda(const DeviceMatrix& m, const float* x, int x_stride, int n_tokens, float* y,
                  int y_stride, bool accumulate, CudaStream stream) {
  CHECK(n_tokens > 0 && n_tokens < 65536) << n_tokens;
  const DeviceProduct product[] = {{&m, y, y_stride}};
  launch(product, {x, x_stride, n_tokens, accumulate}, max_shared_bytes(), stream);
}

void project_cuda(std::span<const DeviceProduct> products, const float* x, int x_stride,
                  int n_tokens, CudaStream stream) {
  CHECK(n_tokens > 0 && n_tokens < 65536) << n_tokens;
  CHECK(!products.empty() && products.size() <= kMostProducts) << products.size();
  const std::size_t shared = max_shared_bytes();
  std::vector<DeviceProduct> left(products.begin(), products.end());
  while (!left.empty()) {
    const DeviceMatrix& first = *left[0].matrix;
    const auto others = std::stable_partition(left.begin(), left.end(), [&](const auto& p) {
      CHECK(p.matrix->n_cols == first.n_cols) << p.matrix->n_cols << ", " << first.n_cols;
      return share_a_launch(first, *p.matrix, shared);
    });
    launch(std::span(left.begin(), others), {x, x_stride, n_tokens, false}, shared, stream);
    left.erase(left.begin(), others);
  }
}

bool project_is_by_piece(const DeviceMatrix& m) {
  return !is_for_gptq_cuda(m, max_shared_bytes(), false) && is_of_no_row_form(m);
}

void project_heads_cuda(const HeadsCudaArgs& a, CudaStream stream) {
  CHECK(a.n_tokens > 0 && a.n_tokens < 65536) << a.n_tokens;
  constexpr int kRows = 4, kTokens = 8;
  if (a.n_rows % kRows == 0)
    a.n_tokens == 1 ? launch_heads<kRows, 1>(a, stream) : launch_heads<kRows, kTokens>(a, stream);
  else  // rows of two heads would meet in a warp
    a.n_tokens == 1 ? launch_heads<1, 1>(a, stream) : launch_heads<1, kTokens>(a, stream);
}

void swiglu_cuda(const DeviceMatrix& gate, const DeviceMatrix& up, const float* x, int x_stride,
                 int n_tokens, float* h, CudaStream stream) {
  CHECK(n_tokens > 0 && n_tokens < 65536) << n_tokens;
  CHECK(gate.n_rows == up.n_rows && gate.n_cols == up.n_cols)
      << gate.n_rows << " x " << gate.n_cols << ", " << up.n_rows << " x " << up.n_cols;
  if (const std::size_t shared = max_shared_bytes(); are_for_gptq_cuda(gate, up, shared)) {
    const DeviceProduct products[] = {{&gate, h, gate.n_rows}, {&up, nullptr, 0}};
    return gptq_cuda({.products = products,
                      .x = x,
                      .x_stride = x_stride,
                      .n_tokens = n_tokens,
                      .swiglu = true,
                      .shared_bytes = shared},
                     stream);
  }
  swiglu_by_row(gate, up, {x, x_stride, n_tokens, false}, h, stream);
}

bool swiglu_is_by_piece(const DeviceMatrix& gate, const DeviceMatrix& up) {
  return !are_for_gptq_cuda(gate, up, max_shared_bytes()) &&
         (is_of_no_row_form(gate) || !are_of_one_row_form(gate, up));
}

}  // namespace assay::kernels
