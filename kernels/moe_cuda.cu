#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/cuda_check.cuh"
#include "kernels/moe_cuda.h"
#include "kernels/moe_sums_combine.h"
#include "kernels/moe_sums_cuda.h"
#include "kernels/moe_units.cuh"
#include "kernels/project_cuda.h"
#include "kernels/row_dot.cuh"
#include "kernels/vq_slices.h"

namespace assay::kernels {
namespace {

// A warp to a row, any kind of matrix.

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

// Blocks along rows and along tokens, at most one a multiprocessor: those that end first, by a
// block's steps and what a token costs besides. One token's go along its rows.
template <bool kDown>
dim3 unit_grid(const UnitLaunch& l, const UnitArgs& a, int n_items) {
  constexpr int kStepsOfToken = 4;
  const auto up = [](int n, int d) { return (n + d - 1) / d; };
  const int n_blocks = n_multiprocessors();
  const auto grid_of = [&](int x) { return dim3(x, std::min(a.n_tokens, n_blocks / x)); };
  const auto cost = [&](dim3 g) {
    const int items = up(n_items, static_cast<int>(g.x));
    const int steps = kDown ? up(a.top_k, l.lines) * items : up(2 * items, l.lines);
    return static_cast<long long>(steps + kStepsOfToken) * up(a.n_tokens, static_cast<int>(g.y));
  };
  dim3 best = grid_of(std::min(n_blocks, n_items));
  for (int x = static_cast<int>(best.x) - 1; a.n_tokens > 1 && x > 0; --x)
    if (cost(grid_of(x)) < cost(best)) best = grid_of(x);
  return best;
}

template <bool kDown, int kScales, int kStride, int kOnly>
void launch(const UnitLaunch& l, UnitArgs a, CudaStream stream) {
  const auto kernel = moe_units<kDown, kScales, kStride, kOnly>;
  const std::size_t stage_bytes = static_cast<std::size_t>(l.lines * l.job_bytes);
  const std::size_t sums_at = l.table_bytes + static_cast<std::size_t>(l.stages) * stage_bytes;
  static OncePerDevice prepare;
  prepare([&] {
    prefer_shared_memory(reinterpret_cast<const void*>(kernel),
                         max_shared_bytes() - sizeof(UnitRing));
  });
  const int tiles = unit_tiles(a.n_rows), n_items = kDown ? tiles : tiles * a.top_k;
  const dim3 grid = unit_grid<kDown>(l, a, n_items);
  const std::size_t item_bytes =
      static_cast<std::size_t>((kDown ? a.top_k : 2) * l.parts * kVqUnitRows) * sizeof(float);
  const int most_items = (n_items + static_cast<int>(grid.x) - 1) / static_cast<int>(grid.x);
  a.parts = l.parts;
  a.lines = l.lines;
  a.stages = l.stages;
  a.job_bytes = l.job_bytes;
  a.ring_at = static_cast<int>(l.table_bytes);
  a.sums_at = static_cast<int>(sums_at);
  a.arrivals = arrivals_of_warp();
  a.round = std::min(most_items, static_cast<int>(l.sum_bytes / item_bytes));
  CHECK(a.round > 0 && l.stages <= kUnitStages && l.parts * l.lines <= kUnitWarps)
      << l.sum_bytes << " bytes for sums, " << l.stages << " stages, " << l.parts << " x "
      << l.lines << " warps";
  CHECK(l.parts == unit_parts(a.n_cols)) << l.parts << ", " << a.n_cols << " columns";
  overlapped(kernel, grid, dim3(32, l.parts * l.lines + 1),
             sums_at + static_cast<std::size_t>(a.round) * item_bytes, stream, a);
}

// The form of all units of a launch, 0 if they differ.
int only_form(const UnitLaunch& l) {
  int form = 0;
  for (int i = 0; i < UnitLaunch::kTables; ++i) {
    const int copies = l.table[i].copies;
    if (copies == 0) continue;
    if (form != 0) return 0;
    const bool is_small = i == UnitLaunch::k8x256 || i == UnitLaunch::k4x256;
    form = form_code(i == UnitLaunch::k8x256 || i == UnitLaunch::k8x4096 ? 8 : 4,
                     is_small ? 8 : 12 + std::countr_zero(static_cast<unsigned>(copies)));
  }
  return form;
}

// The usual scale groups and one tier have a kernel without what other tiers need: its code is
// there sooner.
template <bool kDown, int... kForms>
bool launch_only(int form, const UnitLaunch& l, const UnitArgs& a, CudaStream stream,
                 std::integer_sequence<int, kForms...>) {
  return ((form == kForms && (launch<kDown, 4, 256, kForms>(l, a, stream), true)) || ...);
}

template <bool kDown>
void launch(const UnitLaunch& l, const UnitArgs& a, CudaStream stream) {
  using Forms =
      std::integer_sequence<int, form_code(8, 8), form_code(4, 8), form_code(8, 12),
                            form_code(8, 13), form_code(4, 12), form_code(4, 13), form_code(4, 14)>;
  const int form = only_form(l);
  if (l.scales == 4 && (l.stride == 256 || form % 16 > 8) &&
      launch_only<kDown>(form, l, a, stream, Forms()))
    return;
  if (l.scales == 4 && l.stride == 256) launch<kDown, 4, 256, 0>(l, a, stream);
  if (l.scales == 4 && l.stride == 32) launch<kDown, 4, 32, 0>(l, a, stream);
  if (l.scales == 8 && l.stride == 256) launch<kDown, 8, 256, 0>(l, a, stream);
  if (l.scales == 8 && l.stride == 32) launch<kDown, 8, 32, 0>(l, a, stream);
}

}  // namespace

UnitPlan plan_moe_units(std::span<const VqMatrix> experts, int top_k, MoeLayout layout) {
  if (top_k > kMaxTopUnits) return {};
  if (sums_pay(experts))
    if (const UnitPlan sums = plan_sums(experts, top_k, max_shared_bytes()); sums.is_in_units())
      return sums;
  const UnitPlan units = plan_units(experts, top_k, max_shared_bytes());
  if (layout == MoeLayout::kSmallest && units.is_in_units()) return units;
  if (slices_pay(experts))
    if (const UnitPlan sliced = plan_slices(experts, top_k, max_shared_bytes());
        sliced.is_in_units())
      return sliced;
  return units;
}

MoePlan::MoePlan(const UnitPlan& plan, std::span<const DeviceMatrix> experts) : units(plan) {
  if (!units.is_in_units()) return;
  n_experts = static_cast<int>(experts.size() / 3);
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const DeviceMatrix& m = experts[i];
    CHECK(m.units.bits > 0) << "expert matrix " << i << " is not in units";
    const int which = UnitLaunch::table_of(m.dim, m.index_bits);
    codebook[i % 3 == 2 ? 1 : 0][which] = m.codebook_f16;
    if (units.is_by_slices())
      kinds.of_expert[i / 3] |= static_cast<unsigned char>(which << (2 * (i % 3)));
  }
}

namespace {

// Of a layer by slices, what its codebooks are multiplied by.
std::string kinds_text(const UnitPlan& plan) {
  bool sums = false, units = false;
  for (const UnitLaunch* l : {&plan.gate_up, &plan.down}) {
    sums = sums || l->table[UnitLaunch::k8x256].copies + l->table[UnitLaunch::k4x256].copies > 0;
    units =
        units || l->table[UnitLaunch::k8x4096].copies + l->table[UnitLaunch::k4x4096].copies > 0;
  }
  return sums && units ? "partial sums, units" : sums ? "partial sums" : "units";
}

}  // namespace

std::string MoePlan::text() const {
  if (!is_grouped()) return "rows";
  if (units.is_by_sums()) return "vq partial sums";
  if (units.is_by_slices()) return "vq slices (" + kinds_text(units) + ")";
  const int copies = std::max(units.gate_up.most_copies(), units.down.most_copies());
  return copies > 1 ? "vq units, tables ×" + std::to_string(copies) : "vq units";
}

void moe_cuda(const MoeCudaArgs& args, CudaStream stream) {
  CHECK(args.n_tokens > 0 && args.n_tokens * args.top_k < 65536)
      << args.n_tokens << " x " << args.top_k;
  const MoePlan& plan = *args.plan;
  const bool by_sums = plan.units.is_by_sums() || plan.units.is_by_slices();
  MoeCudaArgs a = args;
  if (const SharedDownCuda& down = a.shared_down;
      down.matrix != nullptr && !(by_sums && combine_makes_shared(a))) {
    project_cuda(*down.matrix, down.x, down.matrix->n_cols, a.n_tokens, down.y, a.hidden, false,
                 stream);
    a.shared = down.y;
    a.shared_down = {};
  }
  if (!plan.is_grouped()) {
    expert_gate_up<<<row_grid(a.width, a.n_tokens * a.top_k), dim3(32, kRowWarps), 0, stream>>>(a);
    CUDA_CHECK(cudaGetLastError()) << a.width << " x " << a.hidden;
    expert_down<<<row_grid(a.hidden, a.n_tokens), dim3(32, kRowWarps), 0, stream>>>(a);
    CUDA_CHECK(cudaGetLastError()) << a.hidden << " x " << a.width;
    return;
  }
  CHECK(a.top_k == plan.units.top_k) << a.top_k << ", planned for " << plan.units.top_k;
  if (by_sums) return moe_sums_cuda(a, stream);
  UnitArgs u{};
  u.experts = a.experts;
  u.expert = a.expert;
  u.weight = a.weight;
  u.shared = a.shared;
  u.n_tokens = a.n_tokens;
  u.top_k = a.top_k;
  u.x = a.x, u.y = a.h, u.n_rows = a.width, u.n_cols = a.hidden;
  u.tables = tables_of(plan.units.gate_up, plan.codebook[0]);
  launch<false>(plan.units.gate_up, u, stream);
  u.x = a.h, u.y = a.residual, u.n_rows = a.hidden, u.n_cols = a.width;
  u.tables = tables_of(plan.units.down, plan.codebook[1]);
  launch<true>(plan.units.down, u, stream);
}

}  // namespace assay::kernels
