#include <algorithm>

#include "kernels/cuda_check.cuh"
#include "kernels/moe_slices.cuh"
#include "kernels/moe_sums.cuh"
#include "kernels/moe_sums_combine.h"
#include "kernels/moe_sums_cuda.h"

namespace assay::kernels {
namespace {

// What slices cost, of gate and up, then of down, by UnitLaunch::TableOf, as measured for GLM-5.2
// on an H200. Down's blocks in units begin sooner than those of partial sums: their jobs count
// less.
constexpr SliceCost kSliceCost[2][UnitLaunch::kTables] = {
    {{128, 38}, {136, 36}, {129, 28}, {125, 28}}, {{127, 70}, {106, 75}, {98, 60}, {100, 60}}};
constexpr int kLeastBlocksOfToken = 16;

template <int kDim, bool kDown>
void launch_sums(const SumsArgs& a, int n_z, CudaStream stream) {
  constexpr std::size_t kBytes = sums_shared_bytes<kDim>();
  const auto kernel = multiply_sums<kDim, kDown>;
  static OncePerDevice prepare;
  prepare([&] { prefer_shared_memory(reinterpret_cast<const void*>(kernel), kBytes); });
  const int n_slices = sums_slices(a.n_cols, kDim);
  const int n_tiles = unit_tiles(a.n_rows) * (kDown ? 1 : 2 * a.top_k);
  // Enough blocks for every multiprocessor, as long as each has a tile for every warp.
  const int n_shares =
      std::clamp(n_multiprocessors() / (n_slices * n_z), 1, std::max(1, n_tiles / kSumsWarps));
  overlapped(kernel, dim3(n_slices, n_shares, n_z), kSumsThreads, kBytes, stream, a);
}
template <bool kDown>
void launch_sums(const SumsArgs& a, int dim, int n_z, CudaStream stream) {
  if (dim == 8)
    launch_sums<8, kDown>(a, n_z, stream);
  else
    launch_sums<4, kDown>(a, n_z, stream);
}

// Of a launch in partial sums: its codebook's kind.
int sums_dim(const UnitLaunch& l) { return l.table[UnitLaunch::k8x256].copies > 0 ? 8 : 4; }
const UnitLaunch::Table& sums_table(const UnitLaunch& l) {
  return l.table[sums_dim(l) == 8 ? UnitLaunch::k8x256 : UnitLaunch::k4x256];
}
const __half* sums_codebook(const UnitLaunch& l,
                            const void* const (&codebook)[UnitLaunch::kTables]) {
  return static_cast<const __half*>(
      codebook[sums_dim(l) == 8 ? UnitLaunch::k8x256 : UnitLaunch::k4x256]);
}
// Of a matrix of a launch in partial sums or by slices.
int most_slices(const UnitLaunch& l, int n_cols) {
  int most = 0;
  for (int i = 0; i < UnitLaunch::kTables; ++i)
    if (l.table[i].copies > 0)
      most = std::max(most, n_slices(static_cast<UnitLaunch::TableOf>(i), n_cols));
  return most;
}
std::size_t gate_up_sums(const UnitPlan& plan, int hidden, int width) {
  return static_cast<std::size_t>(2 * plan.top_k) *
         static_cast<std::size_t>(most_slices(plan.gate_up, hidden)) *
         static_cast<std::size_t>(sums_padded(width));
}

// a.n_tokens that have room for their sums.
void moe_sums(const MoeCudaArgs& a, CudaStream stream) {
  const UnitPlan& plan = a.plan->units;
  const int dim = sums_dim(plan.gate_up), down_dim = sums_dim(plan.down);
  float* const down_sums =
      a.sums + static_cast<std::size_t>(a.sums_tokens) * gate_up_sums(plan, a.hidden, a.width);
  SumsArgs s{.experts = a.experts, .expert = a.expert, .top_k = a.top_k};
  s.x = a.x, s.sums = a.sums, s.n_rows = a.width, s.n_cols = a.hidden;
  s.codebook = sums_codebook(plan.gate_up, a.plan->codebook[0]);
  s.n_codes = sums_table(plan.gate_up).n_codes;
  launch_sums<false>(s, dim, a.n_tokens, stream);
  s.x = a.sums, s.sums = down_sums, s.n_rows = a.hidden, s.n_cols = a.width;
  s.x_slices = sums_slices(a.hidden, dim);
  s.codebook = sums_codebook(plan.down, a.plan->codebook[1]);
  s.n_codes = sums_table(plan.down).n_codes;
  launch_sums<true>(s, down_dim, a.n_tokens * a.top_k, stream);
  moe_combine_cuda(a, {down_sums, sums_slices(a.width, down_dim), true}, stream);
}

template <bool kDown>
void launch_slices(SliceArgs a, const UnitLaunch& l,
                   const void* const (&codebook)[UnitLaunch::kTables], int n_tokens,
                   CudaStream stream) {
  const auto kernel = multiply_slices<kDown>;
  constexpr std::size_t kBytes = most_slice_bytes();
  static OncePerDevice prepare;
  prepare([&] { prefer_shared_memory(reinterpret_cast<const void*>(kernel), kBytes); });
  a.tables = tables_of(l, codebook);
  for (int i = 0; i < UnitLaunch::kTables; ++i) {
    a.tables.at[i] = 0;  // a block has one of them
    a.n_codes[i] = l.table[i].n_codes;
    a.cost[i] = kSliceCost[kDown ? 1 : 0][i];
  }
  // Of a batch some to each token.
  const int n_blocks = std::max(kLeastBlocksOfToken, n_multiprocessors() / n_tokens);
  overlapped(kernel, dim3(n_blocks, n_tokens), kSliceThreads, kBytes, stream, a);
}

// The same.
void moe_slices(const MoeCudaArgs& a, CudaStream stream) {
  const UnitPlan& plan = a.plan->units;
  float* const down_sums =
      a.sums + static_cast<std::size_t>(a.sums_tokens) * gate_up_sums(plan, a.hidden, a.width);
  SliceArgs s{.experts = a.experts,
              .n_experts = a.plan->n_experts,
              .expert = a.expert,
              .kinds = a.plan->kinds,
              .top_k = a.top_k};
  s.x = a.x, s.sums = a.sums, s.n_rows = a.width, s.n_cols = a.hidden;
  s.most_slices = most_slices(plan.gate_up, a.hidden);
  launch_slices<false>(s, plan.gate_up, a.plan->codebook[0], a.n_tokens, stream);
  s.x = a.sums, s.sums = down_sums, s.n_rows = a.hidden, s.n_cols = a.width;
  s.most_x_slices = s.most_slices, s.n_x_cols = a.hidden;
  s.most_slices = most_slices(plan.down, a.width);
  launch_slices<true>(s, plan.down, a.plan->codebook[1], a.n_tokens, stream);
  moe_combine_cuda(a, {down_sums, s.most_slices, false}, stream);
}

}  // namespace

std::size_t MoePlan::sums_per_token(int hidden, int width) const {
  if (!units.is_by_sums() && !units.is_by_slices()) return 0;
  return gate_up_sums(units, hidden, width) +
         static_cast<std::size_t>(units.top_k) *
             static_cast<std::size_t>(most_slices(units.down, width)) *
             static_cast<std::size_t>(sums_padded(hidden));
}

void moe_sums_cuda(const MoeCudaArgs& a, CudaStream stream) {
  CHECK(a.sums_tokens > 0 && a.top_k <= kMaxTopSums) << a.sums_tokens << ", " << a.top_k;
  for (int first = 0; first < a.n_tokens; first += a.sums_tokens) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(first) * a.hidden,
                         slot = static_cast<std::ptrdiff_t>(first) * a.top_k;
    MoeCudaArgs turn = a;
    turn.n_tokens = std::min(a.sums_tokens, a.n_tokens - first);
    turn.expert += slot, turn.weight += slot;
    turn.x += row, turn.residual += row;
    if (a.shared_down.matrix != nullptr)
      turn.shared_down.x += static_cast<std::ptrdiff_t>(first) * a.shared_down.matrix->n_cols;
    else
      turn.shared += row;
    if (a.plan->units.is_by_slices())
      moe_slices(turn, stream);
    else
      moe_sums(turn, stream);
  }
}

}  // namespace assay::kernels
