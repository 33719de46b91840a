#include <algorithm>
#include <numeric>

#include "kernels/cuda_check.cuh"
#include "kernels/moe_cuda.h"
#include "kernels/row_dot.cuh"
#include "kernels/vq_cuda.cuh"

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

// Grouped. Partial results: of gate and up (n_slots, 2, gate_up_slices, width), then of down
// (n_slots, down_slices, hidden); a slot is a token's k-th expert.

struct Grouped {
  const DeviceMatrix* experts;
  const int* expert;
  const float* x;
  float *gate_up, *down;
  int top_k, hidden, width, gate_up_slices, down_slices;
  bool codewords_only;  // the plan's designs, for whoever reads partial results
};

__device__ int n_slices_on(const DeviceMatrix& m, bool codewords_only) {
  return n_slices_of(m, design_of(m, codewords_only));
}

// In order, with the loads of several ahead, of the last few as well.
__device__ float sum_slices(const float* parts, int n_slices, int stride) {
  constexpr int kAhead = 8;
  float sum = 0;
  for (int first = 0; first < n_slices; first += kAhead) {
    float part[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      part[i] = parts[static_cast<size_t>(min(first + i, n_slices - 1)) * stride];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i < n_slices) sum += part[i];
  }
  return sum;
}

// Whose matrices a block multiplies: of gate and up all of a token's that are of this tier; of down
// one slot's. A lane of the first warp looks at each; all threads wait.
template <bool kDown>
__device__ int find_jobs(const Grouped& a, const DeviceMatrix& like, int slice, VqJob* jobs) {
  __shared__ int n_jobs;
  if (threadIdx.x < 32) {
    const int n_candidates = kDown ? 1 : 2 * a.top_k;
    int n = 0;
    for (int first = 0; first < n_candidates; first += 32) {
      const int i = first + threadIdx.x;
      const int slot = kDown ? blockIdx.z : blockIdx.z * a.top_k + i / 2, p = kDown ? 2 : i % 2;
      const DeviceMatrix* m = nullptr;
      if (i < n_candidates) {
        m = a.experts + 3 * a.expert[slot] + p;
        if (m->codebook != like.codebook) m = nullptr;
      }
      const unsigned found = __ballot_sync(0xFFFFFFFFu, m != nullptr);
      if (m != nullptr) {
        const size_t row = kDown ? static_cast<size_t>(slot) * a.down_slices + slice
                                 : (static_cast<size_t>(slot) * 2 + p) * a.gate_up_slices + slice;
        jobs[n + __popc(found & ((1u << threadIdx.x) - 1))] = {
            static_cast<const unsigned*>(m->values),
            static_cast<const __half*>(m->scales),
            kDown ? a.down + row * a.hidden : a.gate_up + row * a.width,
            m->row_words,
            m->n_groups,
            m->group};
      }
      n += __popc(found);
    }
    if (threadIdx.x == 0) n_jobs = n;
  }
  __syncthreads();
  return n_jobs;
}

// How many partial results a slot's gate and up have: of the weights and the router's choice, so
// known before they are.
struct GateUpSlices {
  int gate = 0, up = 0;
};
template <bool kDown>
__device__ GateUpSlices gate_up_slices(const Grouped& a) {
  if constexpr (!kDown) return {};
  const DeviceMatrix* e = a.experts + 3 * a.expert[blockIdx.z];
  return {n_slices_on(e[0], a.codewords_only), n_slices_on(e[1], a.codewords_only)};
}

// x of the slice: the token's, or silu(gate) * up of the slot's partial results.
template <bool kDown>
__device__ void stage_x(const Grouped& a, GateUpSlices slices, int slice, int columns_of_lane,
                        float* x) {
  const int n_cols = kDown ? a.width : a.hidden, first = slice * 32 * columns_of_lane;
  const float* parts = a.gate_up + static_cast<size_t>(blockIdx.z) * 2 * a.gate_up_slices * a.width;
  for (int i = threadIdx.x; i < 32 * columns_of_lane; i += blockDim.x) {
    const int c = first + i;
    float value = 0;
    if (c < n_cols) {
      if constexpr (kDown) {
        const float gate = sum_slices(parts + c, slices.gate, a.width);
        value = silu(gate) * sum_slices(parts + static_cast<size_t>(a.gate_up_slices) * a.width + c,
                                        slices.up, a.width);
      } else {
        value = a.x[static_cast<size_t>(blockIdx.z) * a.hidden + c];
      }
    }
    x[i / columns_of_lane * (columns_of_lane + kLanePad) + i % columns_of_lane] = value;
  }
}

constexpr int columns_of_lane(MoeTier::Design design, int dim) {
  return dim * (has_partial_sums(design) ? kSumsColumns : kCodewordsColumns) / 32;
}

// Grid: slices, shares of the rows, tokens (down: slots). Shared memory: x, then the table.
template <MoeTier::Design kDesign, int kDim, int kBits, int kCopies, int kScaleLanes, bool kDown>
__global__ void __launch_bounds__(has_partial_sums(kDesign) ? kSumsThreads : kCodewordsThreads, 1)
    multiply(Grouped a, DeviceMatrix like) {
  extern __shared__ __align__(128) float shared[];
  __shared__ VqJob jobs[kMaxJobs];
  const int slice = blockIdx.x;
  constexpr int kColumns = columns_of_lane(kDesign, kDim);
  float* table = shared + x_floats(kColumns);
  if constexpr (has_partial_sums(kDesign)) fetch_codebook<kDim>(table, like);
  // Gate and up follow the router, whose choice they read; down follows them.
  if (!kDown) await_previous();
  const int n_jobs = find_jobs<kDown>(a, like, slice, jobs);
  if (n_jobs == 0) {
    if (kDown) await_previous();
    await_copies<0>();
    return;
  }
  const GateUpSlices slices = gate_up_slices<kDown>(a);
  const auto stage = [&] {
    if (kDown) await_previous();
    let_next_begin();
    stage_x<kDown>(a, slices, slice, kColumns, shared);
  };
  const VqSlice s = {shared, slice, kDown ? a.hidden : a.width, kDown ? a.width : a.hidden};
  const int warps = blockDim.x / 32, part = blockIdx.y * warps + threadIdx.x / 32,
            n_parts = gridDim.y * warps;
  if constexpr (has_partial_sums(kDesign))
    multiply_partial_sums<kDim, kScaleLanes>(table, jobs, n_jobs, s, part, n_parts, stage);
  else
    multiply_codewords<kDim, kBits, kCopies, kScaleLanes>(reinterpret_cast<__half*>(table), like,
                                                          jobs, n_jobs, s, part, n_parts, stage);
}

constexpr int kCombineRows = 32;  // of a block; a warp adds up the slices of one expert at a time
constexpr int kCombineWarps = 8;

__global__ void combine(Grouped a, const float* weight, const float* shared, float* residual) {
  __shared__ float of_expert[kMaxJobs][kCombineRows];
  const int lane = threadIdx.x, row = blockIdx.x * kCombineRows + lane, token = blockIdx.y;
  const auto n_slices = [&](int k) {
    return n_slices_on(a.experts[3 * a.expert[token * a.top_k + k] + 2], a.codewords_only);
  };
  const int first = threadIdx.y < a.top_k ? n_slices(threadIdx.y) : 0;
  await_previous();
  let_next_begin();
  for (int k = threadIdx.y; k < a.top_k; k += kCombineWarps) {
    const int slot = token * a.top_k + k;
    const float* parts = a.down + static_cast<size_t>(slot) * a.down_slices * a.hidden + row;
    const float value =
        row < a.hidden ? sum_slices(parts, k < kCombineWarps ? first : n_slices(k), a.hidden) : 0;
    of_expert[k][lane] = weight[slot] * value;
  }
  __syncthreads();
  if (threadIdx.y != 0 || row >= a.hidden) return;
  float sum = 0;
  for (int k = 0; k < a.top_k; ++k) sum += of_expert[k][lane];
  const size_t i = static_cast<size_t>(token) * a.hidden + row;
  residual[i] = residual[i] + sum + shared[i];
}

// A multiprocessor whose next kernel wants another split of L1 and shared memory has to drain
// first.
template <class Kernel>
void same_shared_memory(Kernel* kernel) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared));
}

template <MoeTier::Design kDesign, int kDim, int kBits, int kCopies, int kScaleLanes, bool kDown>
void launch(const Grouped& a, const MoeTier& tier, int n_tokens, CudaStream stream) {
  constexpr bool kSums = has_partial_sums(kDesign);
  constexpr std::size_t kTableBytes =
      kSums ? sizeof(float) * sums_floats(kDim) : (std::size_t{kCopies} * 2 * kDim) << kBits;
  constexpr std::size_t kBytes =
      sizeof(float) * x_floats(columns_of_lane(kDesign, kDim)) + kTableBytes;
  const auto kernel = multiply<kDesign, kDim, kBits, kCopies, kScaleLanes, kDown>;
  static OncePerDevice prepare;
  prepare([&] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kBytes)))
        << kBytes << " bytes";
    same_shared_memory(kernel);
  });
  const int n_z = kDown ? n_tokens * a.top_k : n_tokens;
  // Enough blocks for every multiprocessor, as long as each has a few batches for every warp.
  constexpr int kThreads = kSums ? kSumsThreads : kCodewordsThreads;
  constexpr int kRowsAtOnce = kThreads / 32 * (kSums ? kSumsRows : kCodewordsRows);
  const int n_rows = tier.like.n_rows * (kDown ? 1 : 2 * a.top_k);
  const int n_shares =
      std::clamp(n_multiprocessors() / (tier.n_slices * n_z), 1, std::max(1, n_rows / kRowsAtOnce));
  overlapped(kernel, dim3(tier.n_slices, n_shares, n_z), kThreads, kBytes, stream, a, tier.like);
}

// kLanes lanes share a scale where the tier's groups allow, else each has its own.
template <MoeTier::Design kDesign, int kDim, int kBits, int kCopies, int kLanes, bool kDown>
void launch_for_group(const Grouped& a, const MoeTier& tier, int n_tokens, CudaStream stream) {
  if (tier.group % (kLanes * columns_of_lane(kDesign, kDim)) == 0)
    launch<kDesign, kDim, kBits, kCopies, kLanes, kDown>(a, tier, n_tokens, stream);
  else
    launch<kDesign, kDim, kBits, kCopies, 1, kDown>(a, tier, n_tokens, stream);
}

template <bool kDown>
void multiply_tier(const Grouped& a, const MoeTier& tier, int n_tokens, CudaStream stream) {
  using D = MoeTier::Design;
  const bool wide = tier.like.dim == 8;
  if (has_partial_sums(tier.design)) {
    if (wide)
      launch_for_group<D::kPartialSums, 8, 8, 1, 4, kDown>(a, tier, n_tokens, stream);
    else
      launch_for_group<D::kPartialSums, 4, 8, 1, 4, kDown>(a, tier, n_tokens, stream);
  } else if (tier.like.index_bits == 8) {
    if (wide)
      launch_for_group<D::kCodewords, 8, 8, 8, 2, kDown>(a, tier, n_tokens, stream);
    else
      launch_for_group<D::kCodewords, 4, 8, 16, 4, kDown>(a, tier, n_tokens, stream);
  } else {
    if (wide)
      launch_for_group<D::kCodewords, 8, 12, 2, 2, kDown>(a, tier, n_tokens, stream);
    else
      launch_for_group<D::kCodewords, 4, 12, 4, 4, kDown>(a, tier, n_tokens, stream);
  }
}

bool may_be_grouped(const DeviceMatrix& m, MoeTier::Design design) {
  return m.kind == DeviceMatrix::Kind::kVq && m.n_books == 1 && (m.dim == 4 || m.dim == 8) &&
         (m.index_bits == 8 || m.index_bits == 12) && m.group % columns_of_lane(design, m.dim) == 0;
}

// A table costs every block as much however few rows it serves: measured, codewords are faster on
// micro-glm's 96 and 320 rows, partial sums on GLM-5.2's 2048 and 6144 (docs/performance.md).
constexpr int kLeastRowsOfSums = 1024;

// The tiers of one part of the experts; empty where not all can be grouped.
std::vector<MoeTier> tiers_of(std::span<const DeviceMatrix> experts, bool down,
                              bool codewords_only) {
  std::vector<MoeTier> tiers;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if ((i % 3 == 2) != down) continue;
    const DeviceMatrix& m = experts[i];
    const MoeTier::Design design = design_of(m, codewords_only);
    if (!may_be_grouped(m, design)) return {};
    const bool known = std::any_of(tiers.begin(), tiers.end(),
                                   [&](const MoeTier& t) { return t.like.codebook == m.codebook; });
    if (!known) tiers.push_back({design, m, n_slices_of(m, design), m.group});
    // Lanes share a scale only where every matrix of the tier lets them.
    for (MoeTier& t : tiers)
      if (t.like.codebook == m.codebook) t.group = std::gcd(t.group, m.group);
  }
  if (tiers.size() > kMaxTiers) return {};
  return tiers;
}

int most_slices(const std::vector<MoeTier>& tiers) {
  int most = 0;
  for (const MoeTier& t : tiers) most = std::max(most, t.n_slices);
  return most;
}

MoePlan plan_of(std::span<const DeviceMatrix> experts, bool codewords_only) {
  MoePlan plan;
  plan.gate_up = tiers_of(experts, false, codewords_only);
  plan.down = tiers_of(experts, true, codewords_only);
  if (plan.gate_up.empty() || plan.down.empty()) return {};
  plan.gate_up_slices = most_slices(plan.gate_up);
  plan.down_slices = most_slices(plan.down);
  plan.codewords_only = codewords_only;
  return plan;
}

}  // namespace

std::string MoePlan::text() const {
  if (!is_grouped()) return "rows";
  bool sums = false, words = false;
  for (const auto* part : {&gate_up, &down})
    for (const MoeTier& t : *part) (has_partial_sums(t.design) ? sums : words) = true;
  return sums && words ? "vq partial sums + codewords" : sums ? "vq partial sums" : "vq codewords";
}

std::size_t MoePlan::parts_per_token(int top_k, int hidden, int width) const {
  return static_cast<std::size_t>(top_k) *
         (2 * static_cast<std::size_t>(gate_up_slices) * static_cast<std::size_t>(width) +
          static_cast<std::size_t>(down_slices) * static_cast<std::size_t>(hidden));
}

MoePlan plan_moe(std::span<const DeviceMatrix> experts) {
  const bool small = std::any_of(experts.begin(), experts.end(),
                                 [](const DeviceMatrix& m) { return m.n_rows < kLeastRowsOfSums; });
  return plan_moe(experts, small ? MoeTier::Design::kCodewords : MoeTier::Design::kPartialSums);
}
MoePlan plan_moe(std::span<const DeviceMatrix> experts, MoeTier::Design preferred) {
  constexpr std::size_t kTableBytes = std::size_t{144} << 10;  // with the x of a block
  if (kTableBytes > max_shared_bytes()) return {};             // as on sm_120
  return plan_of(experts, !has_partial_sums(preferred));
}

void moe_cuda(const MoeCudaArgs& a, CudaStream stream) {
  CHECK(a.n_tokens > 0 && a.n_tokens * a.top_k < 65536) << a.n_tokens << " x " << a.top_k;
  const MoePlan& plan = *a.plan;
  if (!plan.is_grouped()) {
    expert_gate_up<<<row_grid(a.width, a.n_tokens * a.top_k), dim3(32, kRowWarps), 0, stream>>>(a);
    CUDA_CHECK(cudaGetLastError()) << a.width << " x " << a.hidden;
    expert_down<<<row_grid(a.hidden, a.n_tokens), dim3(32, kRowWarps), 0, stream>>>(a);
    CUDA_CHECK(cudaGetLastError()) << a.hidden << " x " << a.width;
    return;
  }
  CHECK(a.parts_tokens > 0 && 2 * a.top_k <= kMaxJobs) << a.parts_tokens << ", " << a.top_k;
  for (int first = 0; first < a.n_tokens; first += a.parts_tokens) {
    const int n = std::min(a.parts_tokens, a.n_tokens - first);
    const std::ptrdiff_t slot = static_cast<std::ptrdiff_t>(first) * a.top_k,
                         row = static_cast<std::ptrdiff_t>(first) * a.hidden;
    const Grouped g = {.experts = a.experts,
                       .expert = a.expert + slot,
                       .x = a.x + row,
                       .gate_up = a.parts,
                       .down = a.parts + static_cast<std::ptrdiff_t>(a.parts_tokens) * a.top_k * 2 *
                                             plan.gate_up_slices * a.width,
                       .top_k = a.top_k,
                       .hidden = a.hidden,
                       .width = a.width,
                       .gate_up_slices = plan.gate_up_slices,
                       .down_slices = plan.down_slices,
                       .codewords_only = plan.codewords_only};
    for (const MoeTier& t : plan.gate_up) multiply_tier<false>(g, t, n, stream);
    for (const MoeTier& t : plan.down) multiply_tier<true>(g, t, n, stream);
    static OncePerDevice prepare;
    prepare([] { same_shared_memory(combine); });
    overlapped(combine, dim3((a.hidden + kCombineRows - 1) / kCombineRows, n),
               dim3(kCombineRows, kCombineWarps), 0, stream, g, a.weight + slot, a.shared + row,
               a.residual + row);
  }
}

}  // namespace assay::kernels
