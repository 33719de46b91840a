// Rows of logits as the kernels of sample_cuda.cu and sample_draw_cuda.cu see them. A row is cut
// into chunks, a block to each; what chunks found, a block to each row puts together.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/ordered.cuh"
#include "kernels/sample.h"
#include "kernels/sample_cuda.h"

namespace assay::kernels::sampling {

using Key = unsigned long long;

inline constexpr int kThreads = 256, kWarps = kThreads / 32;
inline constexpr int kOwn = 8;                  // tokens of a thread …
inline constexpr int kChunk = kThreads * kOwn;  // … and of a block
static_assert(kMaxVocabCuda == kChunk * kThreads, "a row's chunks are read by a thread each");
inline constexpr unsigned kLanes = 0xFFFFFFFFu;

struct RowRequest {
  double temperature, top_p, min_p, penalty;
  std::uint64_t seed, stream, position;
  int top_k, n_top, n_watched;
  int draw;  // its place among the rows that draw; −1: greedy
  int logits_row;
  int watched[kMaxWatched];
};

// Of a drawn token, as draw_place has them: how many and how much is likelier, what is kept, what
// top-k leaves for top-p to take its share of, and the kept weights' powers.
enum PlaceSum { kRank, kAbove, kTotal, kPool, kFirstPower };
inline constexpr int kPlaceSums = kFirstPower + static_cast<int>(kDrawPowers.size());

struct RowResult {
  int id = -1;  // −1: a logit is not finite
  float logprob = 0;
  int top_id[kMaxTop] = {};
  float top_logprob[kMaxTop] = {};
  float watched[kMaxWatched] = {};
  double exponent = 0;  // of a drawn token, as its place
  double place[kPlaceSums] = {};
};

struct Candidate {
  double logit;  // after the repetition penalty
  int id;
};
__device__ inline Candidate nobody() { return {-INFINITY, INT_MAX}; }

// Ids of a row that draws.
struct Cut {
  int taken;
  int last_kept;  // by all filters
  int last_of_k;  // by top-k alone
};

struct Rows {
  const float* logits;        // (…, vocab): a row's is where its request says
  const RowRequest* request;  // (n_rows)
  const std::uint32_t* seen;  // (n_rows, seen_words), of rows with a repetition penalty
  const int* drawing;         // (n_draws): their rows
  int vocab, n_chunks, seen_words;
};

// What the kernels of all rows leave for each other.
struct Scratch {
  Key* top;           // (n_rows, n_chunks, kMaxTop): most likely first, logit and id in one
  Candidate* best;    // (n_rows, n_chunks)
  int* finite;        // (n_rows, n_chunks)
  double* sum;        // (n_rows, n_chunks): Σ exp(logit − largest of the row)
  RowResult* result;  // (n_rows)
};

// One row as kernels read it.
struct Row {
  const RowRequest& q;
  const float* logits;
  const std::uint32_t* seen;
  int vocab;

  __device__ Row(const Rows& r, int row)
      : q(r.request[row]),
        logits(r.logits + static_cast<size_t>(q.logits_row) * r.vocab),
        seen(r.seen + static_cast<size_t>(row) * r.seen_words),
        vocab(r.vocab) {}
  __device__ double penalised(int id) const {
    const double v = logits[id];
    if (q.penalty == 1 || (seen[id / 32] >> id % 32 & 1) == 0) return v;
    return v > 0 ? v / q.penalty : v * q.penalty;
  }
  __device__ Candidate candidate(int id) const { return {penalised(id), id}; }
  __device__ int n_of_top_k() const { return q.top_k > 0 ? min(q.top_k, vocab) : vocab; }
};

__device__ inline bool is_likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Token o of this thread, in a chunk that a block reads side by side.
__device__ inline int own_id(int o) {
  return static_cast<int>(blockIdx.x) * kChunk + o * kThreads + static_cast<int>(threadIdx.x);
}

// Reductions over a block: the same result in every thread, in an order of their own. Every thread
// of the block must call them.

__device__ inline Key block_max(Key v) {
  __shared__ Key of_warp[kWarps];
  for (int offset = 16; offset > 0; offset /= 2) {
    const Key other = __shfl_xor_sync(kLanes, v, offset);
    v = other > v ? other : v;
  }
  __syncthreads();  // of_warp may still be read from the call before
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  for (const Key other : of_warp) v = other > v ? other : v;
  return v;
}

__device__ inline double block_sum(double v) {
  __shared__ double of_warp[kWarps];
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kLanes, v, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  double sum = 0;
  for (const double other : of_warp) sum += other;
  return sum;
}

__device__ inline Candidate block_best(Candidate v) {
  __shared__ Candidate of_warp[kWarps];
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other = {__shfl_xor_sync(kLanes, v.logit, offset),
                             __shfl_xor_sync(kLanes, v.id, offset)};
    if (is_likelier(other, v)) v = other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  for (const Candidate& other : of_warp)
    if (is_likelier(other, v)) v = other;
  return v;
}

// The least index of those for whom `is_one`; `otherwise` where there is none.
__device__ inline int block_first(bool is_one, int index, int otherwise) {
  const Key found = block_max(is_one ? ~static_cast<Key>(index) : 0);
  return found == 0 ? otherwise : static_cast<int>(~found);
}

// Of all chunks of a row; every thread of a block must call these.
__device__ inline double largest_logit(const Rows& r, const Scratch& s, int row) {
  const int t = threadIdx.x;
  const size_t chunk = static_cast<size_t>(row) * r.n_chunks + t;
  const Key largest = block_max(t < r.n_chunks ? s.top[chunk * kMaxTop] : 0);
  return float_of_ordered(static_cast<unsigned>(largest >> 32));
}

__device__ inline Candidate likeliest(const Rows& r, const Scratch& s, int row) {
  const int t = threadIdx.x;
  const size_t chunk = static_cast<size_t>(row) * r.n_chunks + t;
  return block_best(t < r.n_chunks ? s.best[chunk] : nobody());
}

}  // namespace assay::kernels::sampling
