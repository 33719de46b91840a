// What a block of moe_slices.cuh does: which kind of codebook, which of a token's matrices, and
// which of their slices' jobs, found from the token's choice so that all blocks end together. A job
// is what a warp has in hand: two tiles of eight rows for partial sums, one in units.
#pragma once

#include "kernels/cuda_check.cuh"
#include "kernels/device_matrix.h"
#include "kernels/moe_sums.cuh"
#include "kernels/unit_dot.cuh"
#include "kernels/vq_slices.h"

namespace assay::kernels {

constexpr int kSliceWarps = 16, kSliceThreads = 32 * kSliceWarps;

// Of one kind of codebook: a job in cycles of a multiprocessor, and how many jobs take as long as a
// slice's beginning does. By measurement; bits do not depend on it.
struct SliceCost {
  int job, gap;
};
__host__ __device__ constexpr int jobs_of(int n_rows, bool is_small) {
  return is_small ? (unit_tiles(n_rows) + 1) / 2 : unit_tiles(n_rows);
}

struct SliceArgs {
  const DeviceMatrix* experts;  // (n_experts, 3)
  int n_experts;
  const int* expert;  // (n_tokens, top_k)
  const float* x;     // (n_tokens, n_cols); down: what gate and up left in `sums`
  float* sums;        // (n_tokens, top_k, 2, most_slices, padded rows); down: without the 2
  UnitTables tables;
  int n_codes[UnitLaunch::kTables];
  SliceCost cost[UnitLaunch::kTables];
  SliceKinds kinds;
  int top_k, n_rows, n_cols;
  int most_slices;              // of a matrix
  int most_x_slices, n_x_cols;  // of down: of gate and up
};

// What a block does: of matrices of one kind (of gate and up all that share x, slice after slice;
// of down one after the other, each slice after slice) what lies in [first, last) of a line that
// has, of a slice, its jobs, then a gap as long as the next slice's beginning takes.
struct SliceWork {
  const unsigned char* source[2 * kMaxTopSums];
  unsigned char matrix[2 * kMaxTopSums];   // of the token's: (slot, gate or up), or slot
  unsigned char x_slices[kMaxTopSums][2];  // of down: of its slot's gate and up
  int kind, first, last, jobs, period;
};

// a / b of numbers that are not negative, in a few instructions: the float quotient errs by less
// than one where it is below 2^22.
__device__ inline int quotient(int a, int b) {
  const int q = static_cast<int>(__fdividef(static_cast<float>(a), static_cast<float>(b)));
  const int rest = a - q * b;
  return rest < 0 ? q - 1 : rest >= b ? q + 1 : q;
}

// A token's matrices that are a block's, of which a lane has found some: their place among them
// (-1: none), and their units, which may be on their way still.
template <bool kDown>
struct FoundSources {
  static constexpr int kRounds = kDown ? 1 : 2;
  int at[kRounds];
  const unsigned char* units[kRounds];

  __device__ void store(SliceWork& work) const {
#pragma unroll
    for (int r = 0; r < kRounds; ++r)
      if (at[r] >= 0) work.source[at[r]] = units[r];
  }
};

// What the choice is looked up in, from memory into the second-level cache while it is awaited: a
// line of it by each of the grid's first threads.
__device__ inline void prefetch_experts(const SliceArgs& a) {
  constexpr int kLine = 128;
  const long long line = (static_cast<long long>(threadIdx.x) * gridDim.x + blockIdx.x) * kLine;
  if (blockIdx.y == 0 && line < a.n_experts * static_cast<long long>(3 * sizeof(DeviceMatrix)))
    prefetch_line(reinterpret_cast<const char*>(a.experts) + line);
}

// By one warp: all of `work` but its sources.
template <bool kDown>
__device__ inline FoundSources<kDown> find_work(const SliceArgs& a, SliceWork& work) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  constexpr int kRounds = FoundSources<kDown>::kRounds;
  const int lane = threadIdx.x, n = (kDown ? 1 : 2) * a.top_k;
  int kind[kRounds];
  FoundSources<kDown> found;
  unsigned char x_slices[2] = {};
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int i = lane + 32 * r, part = kDown ? 2 : i % 2;
    kind[r] = found.at[r] = -1;
    if (i >= n) continue;
    // Down reads the choice before it has waited for anybody: from L2, as other blocks do.
    const int expert = __ldcg(a.expert + blockIdx.y * a.top_k + (kDown ? i : i / 2));
    found.units[r] = static_cast<const unsigned char*>(a.experts[3 * expert + part].values);
    const int kinds = a.kinds.of_expert[expert];
    kind[r] = kinds >> (2 * part) & 3;
    if constexpr (kDown)
      for (int p = 0; p < 2; ++p)
        x_slices[p] = static_cast<unsigned char>(
            n_slices(static_cast<UnitLaunch::TableOf>(kinds >> (2 * p) & 3), a.n_x_cols));
  }
  // Lane k has what is of kind k.
  int count = 0;
#pragma unroll
  for (int k = 0; k < UnitLaunch::kTables; ++k)
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int n_found = __popc(__ballot_sync(kAll, kind[r] == k));
      if (lane == k) count += n_found;
    }
  const SliceCost cost = a.cost[lane % UnitLaunch::kTables];
  const bool is_small = lane == UnitLaunch::k8x256 || lane == UnitLaunch::k4x256;
  const int slices = n_slices(static_cast<UnitLaunch::TableOf>(lane), a.n_cols);
  const int jobs = (kDown ? 1 : count) * jobs_of(a.n_rows, is_small), period = jobs + cost.gap;
  const int line = count == 0 ? 0 : (kDown ? count : 1) * slices * period - cost.gap;
  // A block to each kind, the others in proportion to cost.
  float done = static_cast<float>(line) * static_cast<float>(cost.job);
#pragma unroll
  for (int offset = 1; offset < UnitLaunch::kTables; offset *= 2) {
    const float before = __shfl_up_sync(kAll, done, offset);
    if (lane >= offset) done += before;
  }
  const float total = __shfl_sync(kAll, done, UnitLaunch::kTables - 1);
  const unsigned kinds = __ballot_sync(kAll, line > 0);
  const int n_free = static_cast<int>(gridDim.x) - __popc(kinds);
  const int end = __popc(kinds & ((2u << lane) - 1)) +
                  static_cast<int>(static_cast<float>(n_free) * (done / total) + 0.5f);
  int begin = __shfl_up_sync(kAll, end, 1);
  if (lane == 0) begin = 0;
  const int block = blockIdx.x, rank = block - begin, n_blocks = end - begin;
  const bool is_mine = line > 0 && block >= begin && block < end;
  const int mine = __ffs(__ballot_sync(kAll, is_mine)) - 1;
  if (is_mine) {
    work.kind = lane, work.jobs = jobs, work.period = period;
    // As many blocks to a slice, where that is no slower than parts of the line as long as others.
    const int n_keys = (kDown ? count : 1) * slices, per_key = n_blocks / n_keys;
    if (per_key > 0 && jobs * n_blocks <= line * per_key) {
      const int key = rank / per_key, part = rank % per_key;
      work.first = key * period + jobs * part / per_key;
      work.last = key < n_keys ? key * period + jobs * (part + 1) / per_key : work.first;
    } else {
      const int each = line / n_blocks, rest = line % n_blocks;
      work.first = each * rank + rest * rank / n_blocks;
      work.last = each * (rank + 1) + rest * (rank + 1) / n_blocks;
    }
  }
  int n_before = 0;
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const unsigned of_kind = __ballot_sync(kAll, kind[r] == mine);
    if (kind[r] == mine) {
      const int at = n_before + __popc(of_kind & ((1u << lane) - 1));
      found.at[r] = at;
      work.matrix[at] = static_cast<unsigned char>(lane + 32 * r);
      if constexpr (kDown) work.x_slices[at][0] = x_slices[0], work.x_slices[at][1] = x_slices[1];
    }
    n_before += __popc(of_kind);
  }
  return found;
}

// Of a block's work the pieces that have one x and one table: jobs [begin, end) of a slice, whose
// number, of down over all its matrices, is `slice`.
struct SliceSpan {
  int slice = 0, begin = 0, end = 0;
};
class SliceSpans {
 public:
  __device__ explicit SliceSpans(const SliceWork& w)
      : at_(w.first), last_(w.last), jobs_(w.jobs), period_(w.period) {}
  __device__ bool next(SliceSpan& span) {
    while (at_ < last_) {
      const int slice = quotient(at_, period_), from = slice * period_;
      span = {slice, at_ - from, min(jobs_, last_ - from)};
      at_ = from + period_;
      if (span.begin < span.end) return true;
    }
    return false;
  }

 private:
  int at_;
  const int last_, jobs_, period_;
};

// A warp's jobs of a span: every kSliceWarps-th.
template <bool kDown>
struct SliceJobs {
  int matrix = 0, slice = 0, job = 0, left = 0;

  SliceJobs() = default;
  __device__ SliceJobs(const SliceSpan& span, int per_matrix, int n_slices, int warp)
      : matrix(kDown ? quotient(span.slice, n_slices) : 0),
        slice(span.slice - matrix * n_slices),
        job(span.begin + warp),
        left(job < span.end ? (span.end - job + kSliceWarps - 1) / kSliceWarps : 0) {
    if (!kDown) matrix = quotient(job, per_matrix), job -= matrix * per_matrix;
  }
  __device__ void next(int per_matrix) {
    job += kSliceWarps;
    if (!kDown)
      while (job >= per_matrix) job -= per_matrix, ++matrix;
    --left;
  }
};

}  // namespace assay::kernels
