// Rows that draw are sorted whole: sorting is exact, and needs no guess at how many tokens the
// filters will keep.
#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "base/rng.h"
#include "kernels/cuda_check.cuh"
#include "kernels/elementary.h"
#include "kernels/sample_draw.cuh"

namespace assay::kernels::sampling {
namespace {

constexpr int kSortedRows = 16;  // sorted at a time, with 24 bytes of scratch a token

// What kernels leave for each other.
struct Draws {
  const int* sorted;   // (up to kSortedRows, vocab): ids, most likely first
  double* mass;        // (up to kSortedRows, n_chunks): weight of a chunk of sorted tokens
  int* n_above_min_p;  // (up to kSortedRows, n_chunks)
  Cut* cut;            // (n_draws)
  double* place;       // (n_draws, n_chunks, kPlaceSums)
};

// Inclusive prefix sums over a block's values, a thread's own ones side by side.
__device__ void block_cumulate(double (&v)[kOwn]) {
  __shared__ double of_warp[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int o = 1; o < kOwn; ++o) v[o] += v[o - 1];
  double through = v[kOwn - 1];  // this lane's
  for (int offset = 1; offset < 32; offset *= 2) {
    const double before = __shfl_up_sync(kLanes, through, offset);
    if (lane >= offset) through += before;
  }
  double before = __shfl_up_sync(kLanes, through, 1);
  if (lane == 0) before = 0;
  __syncthreads();
  if (lane == 31) of_warp[warp] = through;
  __syncthreads();
  double of_warps = 0;
  for (int w = 0; w < warp; ++w) of_warps += of_warp[w];
  before += of_warps;
  for (double& own : v) own += before;
}

// Keys whose ascending order is that of falling probability; ties stay as they are, by id. All rows
// together, a float's order with the row above it, or, since a penalty makes doubles, each alone.
__global__ void make_keys(Rows r, int first_draw, bool alone, Key* keys, int* ids) {
  const Row row(r, r.drawing[first_draw + blockIdx.y]);
  for (int o = 0; o < kOwn; ++o) {
    const int id = own_id(o);
    if (id >= r.vocab) continue;
    const size_t at = static_cast<size_t>(blockIdx.y) * r.vocab + id;
    keys[at] = alone ? ~ordered(row.penalised(id))
                     : static_cast<Key>(blockIdx.y) << 32 | ~ordered(row.logits[id]);
    ids[at] = id;
  }
}

// A row's tokens in descending order; weights are relative to the first of them.
struct Sorted {
  const Row& row;
  const int* ids;
  double largest;

  __device__ Sorted(const Row& of, const int* sorted) : row(of), ids(sorted) {
    largest = tempered(0);
  }
  __device__ double tempered(int position) const {
    return row.penalised(ids[position]) / row.q.temperature;
  }
  // Of this thread's positions in a chunk; what top-k leaves out weighs nothing.
  __device__ void weights(int chunk, double (&weight)[kOwn]) const {
    for (int o = 0; o < kOwn; ++o) {
      const int position = chunk * kChunk + static_cast<int>(threadIdx.x) * kOwn + o;
      weight[o] = position < row.n_of_top_k() ? exp_f64(tempered(position) - largest) : 0.0;
    }
  }
  // Their sums from the chunk's first position on.
  __device__ void cumulative(int chunk, double (&sum)[kOwn]) const {
    weights(chunk, sum);
    block_cumulate(sum);
  }
  // The first position through which the sum is enough, `before` being that before each chunk.
  template <class Enough>
  __device__ int first_where(const double* before, int n_chunks, const Enough& is_enough) const {
    const int t = threadIdx.x;
    const int chunk = block_first(t < n_chunks && is_enough(before[t + 1]), t, n_chunks - 1);
    double sum[kOwn];
    cumulative(chunk, sum);
    int own = kOwn;
    for (int o = kOwn - 1; o >= 0; --o)
      if (is_enough(before[chunk] + sum[o])) own = o;
    const int at = block_first(own < kOwn, t * kOwn + own, kChunk - 1);
    return min(chunk * kChunk + at, row.n_of_top_k() - 1);
  }
};

__global__ void weigh_chunks(Rows r, Draws d, int first_draw) {
  const Row row(r, r.drawing[first_draw + blockIdx.y]);
  const Sorted tokens(row, d.sorted + static_cast<size_t>(blockIdx.y) * r.vocab);
  double weight[kOwn];
  tokens.weights(blockIdx.x, weight);
  int n = 0;
  for (int o = 0; o < kOwn; ++o) {
    const int position =
        static_cast<int>(blockIdx.x) * kChunk + static_cast<int>(threadIdx.x) * kOwn + o;
    n += position < row.n_of_top_k() && weight[o] >= row.q.min_p;
  }
  const double n_above_min_p = block_sum(n);
  block_cumulate(weight);
  const size_t chunk = static_cast<size_t>(blockIdx.y) * r.n_chunks + blockIdx.x;
  if (threadIdx.x == kThreads - 1) {
    d.mass[chunk] = weight[kOwn - 1];
    d.n_above_min_p[chunk] = static_cast<int>(n_above_min_p);
  }
}

__global__ void draw_tokens(Rows r, Draws d, int first_draw) {
  const int draw = first_draw + static_cast<int>(blockIdx.x), t = threadIdx.x;
  const Row row(r, r.drawing[draw]);
  const RowRequest& q = row.q;
  const Sorted tokens(row, d.sorted + static_cast<size_t>(blockIdx.x) * r.vocab);
  const size_t chunk = static_cast<size_t>(blockIdx.x) * r.n_chunks + t;
  const bool has_chunk = t < r.n_chunks;
  __shared__ double before[kThreads + 1];
  if (has_chunk) before[t + 1] = d.mass[chunk];
  __syncthreads();
  if (t == 0) {
    before[0] = 0;
    for (int c = 0; c < r.n_chunks; ++c) before[c + 1] += before[c];
  }
  __syncthreads();
  // The likeliest token is always kept.
  int n_kept = max(1, static_cast<int>(block_sum(has_chunk ? d.n_above_min_p[chunk] : 0)));
  if (q.top_p < 1) {
    const double wanted = q.top_p * before[r.n_chunks];
    const int last = tokens.first_where(before, r.n_chunks, [=](double v) { return v >= wanted; });
    n_kept = min(n_kept, last + 1);
  }
  __shared__ double total;
  double sum[kOwn];
  const int last = n_kept - 1;
  tokens.cumulative(last / kChunk, sum);
  for (int o = 0; o < kOwn; ++o)
    if (last % kChunk == t * kOwn + o) total = before[last / kChunk] + sum[o];
  __syncthreads();
  const double at = uniform_at(q.seed, q.stream, q.position) * total;
  const int taken = tokens.first_where(before, r.n_chunks, [=](double v) { return at < v; });
  if (t == 0)
    d.cut[draw] = {tokens.ids[min(taken, last)], tokens.ids[last],
                   tokens.ids[row.n_of_top_k() - 1]};
}

// draw_place's sums, from the logits: of the sampler's numbers only where its filters cut.
__global__ void place_chunks(Rows r, Scratch s, Draws d) {
  const int of_row = r.drawing[blockIdx.y];
  const Row row(r, of_row);
  const double largest = likeliest(r, s, of_row).logit;
  const Cut cut = d.cut[blockIdx.y];
  const Candidate taken = row.candidate(cut.taken), last_kept = row.candidate(cut.last_kept),
                  last_of_k = row.candidate(cut.last_of_k);
  double sum[kPlaceSums] = {};
  for (int o = 0; o < kOwn; ++o) {
    const int id = own_id(o);
    if (id >= r.vocab) continue;
    const Candidate own = row.candidate(id);
    const double exponent = (own.logit - largest) / row.q.temperature;
    if (!(exponent > -kDrawFarBelow) || is_likelier(last_of_k, own)) continue;
    const double weight = exp_f64(exponent), root = sqrt(weight), fourth = sqrt(root),
                 square = weight * weight;
    sum[kPool] += weight;
    if (is_likelier(own, taken)) {
      sum[kRank] += 1;
      sum[kAbove] += weight;
    }
    if (is_likelier(last_kept, own)) continue;
    sum[kTotal] += weight;
    sum[kFirstPower] += square * square;
    sum[kFirstPower + 1] += square;
    sum[kFirstPower + 2] += weight * fourth;
    sum[kFirstPower + 3] += root * fourth;
    sum[kFirstPower + 4] += root;
  }
  const size_t chunk = static_cast<size_t>(blockIdx.y) * r.n_chunks + blockIdx.x;
  for (int k = 0; k < kPlaceSums; ++k) {
    const double of_chunk = block_sum(sum[k]);
    if (threadIdx.x == 0) d.place[chunk * kPlaceSums + k] = of_chunk;
  }
}

int n_chunks_of(int vocab) { return (vocab + kChunk - 1) / kChunk; }

int bits_together(int n_rows) {
  return 32 + static_cast<int>(std::bit_width(static_cast<unsigned>(n_rows - 1)));
}

}  // namespace

RowDrawer::RowDrawer(int vocab, std::size_t max_rows, DeviceBudget& budget) : vocab_(vocab) {
  const auto n_tokens = static_cast<std::size_t>(vocab),
             n_chunks = static_cast<std::size_t>(n_chunks_of(vocab));
  const std::size_t n_sorted = std::min<std::size_t>(max_rows, kSortedRows);
  cut_ = budget.array<Cut>(max_rows);
  place_ = budget.array<double>(max_rows * n_chunks * kPlaceSums);
  for (int i = 0; i < 2; ++i) {
    keys_[i] = budget.array<Key>(n_sorted * n_tokens);
    ids_[i] = budget.array<int>(n_sorted * n_tokens);
  }
  mass_ = budget.array<double>(n_sorted * n_chunks);
  n_above_min_p_ = budget.array<int>(n_sorted * n_chunks);
  std::size_t most = 0;
  for (int rows = 1; rows <= static_cast<int>(n_sorted); ++rows)
    for (const int bits : {bits_together(rows), 64}) {
      std::size_t need = 0;
      cub::DoubleBuffer<Key> keys(nullptr, nullptr);
      cub::DoubleBuffer<int> ids(nullptr, nullptr);
      CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, need, keys, ids, rows * vocab_, 0, bits))
          << rows << " rows of " << vocab_;
      most = std::max(most, need);
    }
  sort_scratch_ = budget.bytes(most);
}

// The ids of n rows that draw, from `first` on, most likely first.
const int* RowDrawer::sort(const Rows& rows, int first, int n, bool alone,
                           CudaStream stream) const {
  make_keys<<<dim3(rows.n_chunks, n), kThreads, 0, stream>>>(rows, first, alone, keys_[0].data(),
                                                             ids_[0].data());
  CUDA_CHECK(cudaGetLastError()) << n << " rows of " << vocab_;
  const int n_sorts = alone ? n : 1, rows_of_sort = alone ? 1 : n;
  const int* sorted = nullptr;
  for (int i = 0; i < n_sorts; ++i) {
    const std::ptrdiff_t at = std::ptrdiff_t{i} * vocab_;
    cub::DoubleBuffer<Key> keys(keys_[0].data() + at, keys_[1].data() + at);
    cub::DoubleBuffer<int> ids(ids_[0].data() + at, ids_[1].data() + at);
    std::size_t bytes = sort_scratch_.size();
    CUDA_CHECK(cub::DeviceRadixSort::SortPairs(sort_scratch_.data(), bytes, keys, ids,
                                               rows_of_sort * vocab_, 0,
                                               alone ? 64 : bits_together(n), stream))
        << rows_of_sort << " rows of " << vocab_;
    sorted = ids.Current() - at;  // the same side for all: their sorts differ in values only
  }
  return sorted;
}

void RowDrawer::launch(const Rows& rows, const Scratch& scratch, std::span<const RowRequest> asked,
                       std::span<const int> drawing, CudaStream stream) {
  Draws d{.sorted = nullptr,
          .mass = mass_.data(),
          .n_above_min_p = n_above_min_p_.data(),
          .cut = cut_.data(),
          .place = place_.data()};
  const int n_draws = static_cast<int>(drawing.size());
  for (int first = 0; first < n_draws; first += kSortedRows) {
    const int n = std::min(kSortedRows, n_draws - first);
    const auto group =
        drawing.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    const bool any_penalty = std::any_of(group.begin(), group.end(), [&](int row) {
      return asked[static_cast<std::size_t>(row)].penalty != 1;
    });
    d.sorted = sort(rows, first, n, any_penalty, stream);
    weigh_chunks<<<dim3(rows.n_chunks, n), kThreads, 0, stream>>>(rows, d, first);
    CUDA_CHECK(cudaGetLastError()) << n << " rows of " << vocab_;
    draw_tokens<<<n, kThreads, 0, stream>>>(rows, d, first);
    CUDA_CHECK(cudaGetLastError()) << n << " rows of " << vocab_;
  }
  if (n_draws == 0) return;
  place_chunks<<<dim3(rows.n_chunks, n_draws), kThreads, 0, stream>>>(rows, scratch, d);
  CUDA_CHECK(cudaGetLastError()) << n_draws << " rows of " << vocab_;
}

}  // namespace assay::kernels::sampling
