#include "kernels/cuda_check.cuh"
#include "kernels/gptq_cuda.h"
#include "kernels/gptq_kernel.cuh"
#include "kernels/moe_sums.cuh"
#include "kernels/moe_sums_combine.h"

namespace assay::kernels {
namespace {

constexpr int kSlicesAhead = 4;  // of a row, on their way at once

struct CombineArgs {
  const DeviceMatrix* experts;  // (n_experts, 3)
  const int* expert;            // (n_tokens, top_k)
  const float *sums, *weight;   // of down; (n_tokens, top_k)
  const float* shared;          // (n_tokens, n_rows), or made here
  float* residual;
  int most_slices;
  bool all_have_most;  // slices
  int top_k, n_rows, n_cols;

  __device__ int slices_of(int slot) const {
    if (all_have_most) return most_slices;
    const UnitForm f = experts[3 * __ldcg(expert + slot) + 2].units;
    return n_slices(UnitLaunch::table_of(f.dim, f.bits), n_cols);
  }
  // Of a row of a slot's expert n slices, at most kSlicesAhead; and their sum, in order.
  __device__ void fetch_slices(int slot, int row, int n, float (&part)[kSlicesAhead],
                               int begin = 0) const {
    const int padded = sums_padded(n_rows);
    const float* first = sums + static_cast<std::size_t>(slot) * most_slices * padded + row;
#pragma unroll
    for (int i = 0; i < kSlicesAhead; ++i)
      part[i] = __ldcg(first + static_cast<std::size_t>(min(begin + i, n - 1)) * padded);
  }
  static __device__ float total(int n, const float (&part)[kSlicesAhead], float sum = 0) {
#pragma unroll
    for (int i = 0; i < kSlicesAhead; ++i)
      if (i < n) sum += part[i];
    return sum;
  }
  // All n.
  __device__ float sum_slices(int slot, int row, int n) const {
    float sum = 0;
    for (int begin = 0; begin < n; begin += kSlicesAhead) {
      float part[kSlicesAhead];
      fetch_slices(slot, row, n, part, begin);
      sum = total(n - begin, part, sum);
    }
    return sum;
  }
};

constexpr int kCombineRows = 32;  // of a block; a warp has one expert at a time
constexpr int kCombineWarps = 8;

// Grid: shares of the rows, tokens.
__global__ void __launch_bounds__(kCombineRows* kCombineWarps)
    combine_sums(const __grid_constant__ CombineArgs a) {
  __shared__ float of_expert[kMaxTopSums][kCombineRows];
  const int lane = threadIdx.x, row = blockIdx.x * kCombineRows + lane, token = blockIdx.y;
  const std::size_t at = static_cast<std::size_t>(token) * a.n_rows + row;
  const bool writes = threadIdx.y == 0 && row < a.n_rows;
  // Older than down, which waited for all before it; past L1, where the layer before's may lie.
  const float residual = writes ? __ldcg(a.residual + at) : 0,
              shared = writes ? __ldcg(a.shared + at) : 0;
  int slices = threadIdx.y < a.top_k ? a.slices_of(token * a.top_k + threadIdx.y) : 0;
  await_previous();
  let_next_begin();
  for (int k = threadIdx.y; k < a.top_k; k += kCombineWarps) {
    const int slot = token * a.top_k + k;
    if (k >= kCombineWarps) slices = a.slices_of(slot);
    if (row < a.n_rows) of_expert[k][lane] = a.sum_slices(slot, row, slices);
  }
  __syncthreads();
  if (!writes) return;
  float sum = 0;
  for (int k = 0; k < a.top_k; ++k)
    sum = fmaf(a.weight[token * a.top_k + k], of_expert[k][lane], sum);
  a.residual[at] = residual + sum + shared;
}

// The same behind the shared experts' product, whose weights and x are older than the launch ahead:
// they are asked for before it has ended, and while weights are on their way experts are added up.

constexpr int kDownWarps = 16, kDownThreads = 32 * kDownWarps;
constexpr int kFoldValues = 8 * kUnitRows;  // tiles times tokens of a fold are eight at most

// By the threads that multiply. A value is a row of a token; a thread has one of a fold at most.
class FoldWithExperts {
 public:
  // weight: (n_tokens, top_k), of_expert: (top_k, values); in shared memory.
  __device__ FoldWithExperts(const CombineArgs& a, float* weight, float* of_expert, int first_token,
                             int n_tokens)
      : a_(a),
        weight_(weight),
        of_expert_(of_expert),
        thread_(threadIdx.y * 32 + threadIdx.x),
        first_slot_(first_token * a.top_k),
        first_token_(first_token),
        n_tokens_(n_tokens) {}

  // Asks for what is older than the launch ahead: of the first fold's tiles.
  __device__ void begin(int first, int n) {
    take(first, n);
    if (thread_ < n_tokens_ * a_.top_k) own_weight_ = __ldcg(a_.weight + first_slot_ + thread_);
    own_ = item_of(thread_);
    if (own_.is_there) own_slices_ = a_.slices_of(own_.slot);
  }
  // Once that launch has ended, for the slices of an item, which arrive while others multiply.
  __device__ void ask() {
    if (thread_ < n_tokens_ * a_.top_k) weight_[thread_] = own_weight_;
    own_.is_there = own_.is_there && own_slices_ <= kSlicesAhead;
    if (own_.is_there) a_.fetch_slices(own_.slot, own_.row, own_slices_, part_);
  }
  // As FoldTiles: rows of the residual.
  __device__ void operator()(const float* sums, int first, int n, int, int) {
    if (first != first_) take(first, n);
    int next = thread_;
    if (own_.is_there) {
      of_expert_[thread_] = CombineArgs::total(own_slices_, part_);
      own_.is_there = false;
      next += kDownThreads;
    }
    for (; next < n_values_ * a_.top_k; next += kDownThreads)
      if (const Item item = item_of(next); item.is_there)
        of_expert_[next] = a_.sum_slices(item.slot, item.row, a_.slices_of(item.slot));
    await_multiplying_warps<kDownWarps>();
    if (!writes_) return;
    const int of_tile = kUnitRows * n_tokens_;
    const float shared = total_of_warps<kDownWarps>(
        sums + thread_ / of_tile * kDownWarps * of_tile + thread_ % of_tile, of_tile);
    float sum = 0;
    for (int k = 0; k < a_.top_k; ++k)
      sum =
          fmaf(weight_[token_of(thread_) * a_.top_k + k], of_expert_[k * n_values_ + thread_], sum);
    a_.residual[at_] = residual_ + sum + shared;
  }

 private:
  // A value of one expert.
  struct Item {
    int slot, row;
    bool is_there;
  };
  __device__ Item item_of(int i) const {
    const int k = i / n_values_, value = i - k * n_values_;
    const int row = row_of(value);
    return {first_slot_ + token_of(value) * a_.top_k + k, row, k < a_.top_k && row < a_.n_rows};
  }
  __device__ int row_of(int value) const {
    const int of_tile = kUnitRows * n_tokens_;
    return (first_ + value / of_tile) * kUnitRows + value % of_tile / n_tokens_;
  }
  __device__ int token_of(int value) const { return value % n_tokens_; }
  // Tiles of the next fold.
  __device__ void take(int first, int n) {
    first_ = first;
    n_values_ = n * kUnitRows * n_tokens_;
    writes_ = thread_ < n_values_ && row_of(thread_) < a_.n_rows;
    if (!writes_) return;
    at_ = static_cast<std::size_t>(first_token_ + token_of(thread_)) * a_.n_rows + row_of(thread_);
    residual_ = __ldcg(a_.residual + at_);
  }

  const CombineArgs& a_;
  float *const weight_, *const of_expert_;
  const int thread_, first_slot_, first_token_, n_tokens_;
  float own_weight_ = 0;
  Item own_{};  // of the first fold, whose slices are on their way
  int own_slices_ = 0;
  float part_[kSlicesAhead];
  // Of the fold in hand.
  int first_ = 0, n_values_ = 1;
  bool writes_ = false;
  std::size_t at_ = 0;
  float residual_ = 0;
};

// Grid: as multiply_gptq. Shared memory: the product's, then FoldWithExperts'.
template <int kBits, int kGroup>
__global__ void __launch_bounds__((kDownWarps + 1) * 32, 1)
    combine_onto_gptq(const __grid_constant__ GptqArgs a, const __grid_constant__ CombineArgs c,
                      int of_expert_at) {
  extern __shared__ __align__(128) unsigned char gptq_memory[];
  const GptqBlock<kBits, kGroup, kDownWarps> down(a, gptq_memory);
  if (!down.multiplies()) {
    down.begin();
    down.keep_fetching();
    return await_previous();
  }
  float* const of_expert = reinterpret_cast<float*>(gptq_memory + of_expert_at);
  FoldWithExperts fold(c, of_expert + c.top_k * kFoldValues, of_expert, down.first_token(),
                       down.n_tokens());
  const GptqShare& share = down.share();
  down.split();
  fold.begin(share.begin, min(a.fold_tiles, share.end - share.begin));
  await_previous();
  let_next_begin();
  fold.ask();
  down.multiply(fold);
}

std::size_t fold_bytes(int top_k) {
  return static_cast<std::size_t>(top_k) * (kFoldValues + kMostTokens) * sizeof(float);
}
std::size_t shared_for_gptq(int top_k) { return max_shared_bytes() - fold_bytes(top_k); }

template <int kBits, int kGroup>
void launch(const GptqLaunch& l, const CombineArgs& c, CudaStream stream) {
  const auto kernel = combine_onto_gptq<kBits, kGroup>;
  static OncePerDevice prepare;
  prepare([&] { prefer_shared_memory(reinterpret_cast<const void*>(kernel), max_shared_bytes()); });
  overlapped(kernel, dim3(l.args.n_shares, l.n_passes), dim3(32, kDownWarps + 1),
             static_cast<std::size_t>(l.n_bytes) + fold_bytes(c.top_k), stream, l.args, c,
             l.n_bytes);
}
template <int kBits>
void launch(const GptqLaunch& l, int group, const CombineArgs& c, CudaStream stream) {
  if (group == 32) launch<kBits, 32>(l, c, stream);
  if (group == 64) launch<kBits, 64>(l, c, stream);
  if (group == 128) launch<kBits, 128>(l, c, stream);
}

void launch_with_down(const MoeCudaArgs& a, const CombineArgs& c, CudaStream stream) {
  const DeviceMatrix& down = *a.shared_down.matrix;
  const DeviceProduct product[] = {{&down, nullptr, 0}};
  const GptqLaunch l = plan_gptq({.products = product,
                                  .x = a.shared_down.x,
                                  .x_stride = down.n_cols,
                                  .n_tokens = a.n_tokens,
                                  .shared_bytes = shared_for_gptq(a.top_k)});
  CHECK(l.n_bytes % 4 == 0 && l.args.fold_tiles * l.args.tokens_of_pass * kUnitRows <= kFoldValues)
      << l.args.fold_tiles << " x " << l.args.tokens_of_pass;
  if (down.bits == 4)
    launch<4>(l, down.group, c, stream);
  else
    launch<8>(l, down.group, c, stream);
}

}  // namespace

bool combine_makes_shared(const MoeCudaArgs& a) {
  const DeviceMatrix* down = a.shared_down.matrix;
  return down != nullptr && down->in_units() &&
         gptq_warps(*down, shared_for_gptq(a.top_k), false) == kDownWarps;
}

void moe_combine_cuda(const MoeCudaArgs& a, const MoeCombineCuda& of, CudaStream stream) {
  CHECK(a.top_k <= kMaxTopSums) << a.top_k;
  const CombineArgs args = {.experts = a.experts,
                            .expert = a.expert,
                            .sums = of.sums,
                            .weight = a.weight,
                            .shared = a.shared,
                            .residual = a.residual,
                            .most_slices = of.most_slices,
                            .all_have_most = of.all_have_most,
                            .top_k = a.top_k,
                            .n_rows = a.hidden,
                            .n_cols = a.width};
  if (a.shared_down.matrix != nullptr) return launch_with_down(a, args, stream);
  static OncePerDevice prepare;
  prepare([] { prefer_shared_memory(reinterpret_cast<const void*>(combine_sums), 0); });
  overlapped(combine_sums, dim3((a.hidden + kCombineRows - 1) / kCombineRows, a.n_tokens),
             dim3(kCombineRows, kCombineWarps), 0, stream, args);
}

}  // namespace assay::kernels
