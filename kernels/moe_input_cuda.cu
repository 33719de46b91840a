#include <algorithm>

#include "kernels/cuda_check.cuh"
#include "kernels/gptq_cuda.h"
#include "kernels/gptq_kernel.cuh"
#include "kernels/moe_input_cuda.h"
#include "kernels/project_cuda.h"
#include "kernels/route_row.cuh"

namespace assay::kernels {
namespace {

constexpr int kGateUpWarps = 16;
constexpr int kMostExpertsBeside = 32 * kGateUpWarps;  // a thread to each
using RouteBeside = RouteShared<kMostExpertsBeside>;

// Threads whose number is no expert's have left.
struct AwaitExperts {
  int n_threads;
  __device__ void operator()() const {
    asm volatile("bar.sync 3, %0;" ::"r"(n_threads) : "memory");
  }
};

// By a block that has no share of gate and up: a row's choice.
__device__ inline void choose_beside(const RouteCuda& a, int row, RouteBeside& s) {
  const int e = threadIdx.y * 32 + threadIdx.x, n_threads = (a.n_experts + 31) / 32 * 32;
  const bool is_expert = e < a.n_experts && row < a.n_rows;
  const float bias = is_expert ? a.bias[e] : 0.0f;
  await_previous();
  let_next_begin();
  if (row >= a.n_rows || e >= n_threads) return;
  const float logit = is_expert ? a.logits[static_cast<size_t>(row) * a.n_experts + e] : 0.0f;
  choose_experts(a, row, s, e, n_threads, logit, bias, AwaitExperts{n_threads});
}

// Grid: shares of gate and up, then a block to each of a pass's tokens; passes.
// dim3(32, kGateUpWarps + 1) threads.
template <int kBits, int kGroup>
__global__ void __launch_bounds__((kGateUpWarps + 1) * 32, 1)
    choose_beside_gptq(const __grid_constant__ GptqArgs a, const __grid_constant__ RouteCuda r) {
  extern __shared__ __align__(128) unsigned char gptq_memory[];
  if (static_cast<int>(blockIdx.x) >= a.n_shares) {
    const int row = static_cast<int>(blockIdx.y) * a.tokens_of_pass +
                    (static_cast<int>(blockIdx.x) - a.n_shares);
    return choose_beside(r, row, *reinterpret_cast<RouteBeside*>(gptq_memory));
  }
  const GptqBlock<kBits, kGroup, kGateUpWarps> gate_up(a, gptq_memory);
  gate_up.run(FoldTiles<kGateUpWarps>{a});
}

template <int kBits, int kGroup>
void launch(const GptqLaunch& l, const RouteCuda& r, CudaStream stream) {
  const auto kernel = choose_beside_gptq<kBits, kGroup>;
  static OncePerDevice prepare;
  prepare([&] { prefer_shared_memory(reinterpret_cast<const void*>(kernel), max_shared_bytes()); });
  overlapped(kernel, dim3(l.args.n_shares + l.args.tokens_of_pass, l.n_passes),
             dim3(32, kGateUpWarps + 1),
             std::max(static_cast<std::size_t>(l.n_bytes), sizeof(RouteBeside)), stream, l.args, r);
}

template <int kBits>
void launch(const GptqLaunch& l, int group, const RouteCuda& r, CudaStream stream) {
  if (group == 32) launch<kBits, 32>(l, r, stream);
  if (group == 64) launch<kBits, 64>(l, r, stream);
  if (group == 128) launch<kBits, 128>(l, r, stream);
}

}  // namespace

bool choice_shares_launch(const MoeInputCuda& a) {
  return a.gate != nullptr && a.route.n_experts <= kMostExpertsBeside &&
         are_alike(*a.gate, *a.up) && gptq_warps(*a.gate, max_shared_bytes(), true) == kGateUpWarps;
}

void moe_input_cuda(const MoeInputCuda& a, CudaStream stream) {
  CHECK((a.gate == nullptr) == (a.up == nullptr)) << "one of gate and up";
  RouteCuda route = a.route;
  route.logits = a.logits;
  route.n_rows = a.n_tokens;
  CHECK(route.n_experts == a.router->n_rows) << route.n_experts << ", " << a.router->n_rows;
  project_cuda(*a.router, a.x, a.x_stride, a.n_tokens, a.logits, route.n_experts, false, stream);
  if (!choice_shares_launch(a)) {
    route_cuda(route, stream);
    if (a.gate != nullptr) swiglu_cuda(*a.gate, *a.up, a.x, a.x_stride, a.n_tokens, a.h, stream);
    return;
  }
  check_route(route);
  const DeviceProduct products[] = {{a.gate, a.h, a.gate->n_rows}, {a.up, nullptr, 0}};
  const GptqLaunch l = plan_gptq({.products = products,
                                  .x = a.x,
                                  .x_stride = a.x_stride,
                                  .n_tokens = a.n_tokens,
                                  .swiglu = true,
                                  .shared_bytes = max_shared_bytes(),
                                  .spare_blocks = std::min(a.n_tokens, kMostTokens)});
  if (a.gate->bits == 4)
    launch<4>(l, a.gate->group, route, stream);
  else
    launch<8>(l, a.gate->group, route, stream);
}

}  // namespace assay::kernels
