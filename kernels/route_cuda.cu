// The router's choice: which experts a row goes to, and with what weights.
#include "kernels/cuda_check.cuh"
#include "kernels/layer_cuda.h"
#include "kernels/route_row.cuh"

namespace assay::kernels {
namespace {

// A block to a row, a thread to an expert.
__global__ void __launch_bounds__(kMaxExpertsCuda) route(RouteCuda a) {
  __shared__ RouteShared<kMaxExpertsCuda> s;
  const int e = threadIdx.x;
  const bool is_expert = e < a.n_experts;
  const float bias = is_expert ? a.bias[e] : 0.0f;
  await_previous();
  let_next_begin();
  const float logit =
      is_expert ? a.logits[static_cast<size_t>(blockIdx.x) * a.n_experts + e] : 0.0f;
  choose_experts(a, blockIdx.x, s, e, blockDim.x, logit, bias, [] { __syncthreads(); });
}

}  // namespace

void route_cuda(const RouteCuda& a, CudaStream stream) {
  check_route(a);
  overlapped(route, dim3(a.n_rows), (a.n_experts + 31) / 32 * 32, 0, stream, a);
}

}  // namespace assay::kernels
