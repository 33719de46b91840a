// The kernel of moe_cuda.cu for layers that mix codebooks (vq_slices.h). A matrix is multiplied
// slice of columns by slice, and a block works at one kind of codebook alone: at 256 codewords by
// partial sums (moe_sums.cuh), at 4096 as units are (unit_dot.cuh). Which kind that is, and at
// what, it finds in what the token chose. Results of slices go through global memory, as those of
// partial sums do; who reads them adds them up in order.
#pragma once

#include "kernels/moe_slice_work.cuh"
#include "kernels/moe_sums.cuh"
#include "kernels/unit_dot.cuh"
#include "kernels/vq_slices.h"

namespace assay::kernels {

constexpr int kMostSliceStages = 3;

// What a kind of codebook asks of a block. Shared memory: its table, x, a ring of each warp.
template <UnitLaunch::TableOf kTable>
struct SliceKind {
  static constexpr int kDim = kTable == UnitLaunch::k8x256 || kTable == UnitLaunch::k8x4096 ? 8 : 4;
  static constexpr bool kSums = kTable == UnitLaunch::k8x256 || kTable == UnitLaunch::k4x256;
  static constexpr UnitForm kForm = {kDim, kSums ? 8 : 14, kSliceUnitScales, true};
  static constexpr int kUnitBytes = kSums ? sums_unit_bytes(kDim) : kForm.bytes();
  static constexpr int kTableBytes =
      kSums ? kSumsTableBytes : slice_copies(kTable) * 4096 * kDim * 2;
  static constexpr int kTiles = kSums ? 2 : 1;  // that a warp has in hand: a job
  static constexpr int kJobBytes = kTiles * kUnitBytes;
  static constexpr int kInputBytes = kTable == UnitLaunch::k8x256 ? 4096 : 2048;
  static constexpr int kStages = kTable == UnitLaunch::k4x4096 ? 3 : 2;
  static constexpr int kRingAt = kTableBytes + kInputBytes;
  static constexpr int kSharedBytes = kRingAt + kSliceWarps * kStages * kJobBytes;
  static constexpr int kColumns = slice_columns(kTable);
};

struct alignas(128) SliceShared {
  std::uint64_t full[kSliceWarps][kMostSliceStages], table;
  float largest[16];
  SliceWork work;
};

// A pair of columns as words of an operand: the block's threads have one each, of high or low
// halves. Returns what undoes their power of two; all threads wait.
__device__ inline float split_words(unsigned* words, float* largest_of_warp, float2 v,
                                    bool is_low) {
  const auto [scale, undo] = slice_scale(largest_of_warp, v);
  const SplitHalf2 x = split_half2(v.x * scale, v.y * scale);
  words[threadIdx.x] = is_low ? x.low : x.high;
  __syncthreads();
  return undo;
}

// A block's work at one kind of codebook.
template <UnitLaunch::TableOf kTable, bool kDown>
class SliceBlock {
 public:
  using Kind = SliceKind<kTable>;

  __device__ SliceBlock(const SliceArgs& a, SliceShared& s, unsigned char* shared)
      : a_(a),
        s_(s),
        shared_(shared),
        ring_(shared + Kind::kRingAt + warp() * Kind::kStages * Kind::kJobBytes),
        n_slices_(n_slices(kTable, a.n_cols)),
        per_matrix_(jobs_of(a.n_rows, Kind::kSums)) {}

  // `found`: of the first warp.
  __device__ void run(const FoundSources<kDown>& found) {
    SliceSpans spans(s_.work);
    SliceSpan span;
    bool more = spans.next(span);
    if (more) fetch_codebook();
    // Codebook and x set out ahead of the units: behind them they would wait for all of their
    // bytes.
    float2 x = {0, 0};
    if (!kDown && more) x = input(span);
    if (warp() == 0) found.store(s_.work);
    __syncthreads();
    if (more) begin_ring(span);
    if (more) copy_tables();
    if (kDown) {
      await_previous();
      let_next_begin();
    }
    if (kDown && more) x = input(span);
#pragma unroll 1
    while (more) {
      prepare(x);
      multiply(span);
      more = spans.next(span);
      if (!more) break;
      x = input(span);
      __syncthreads();
      begin_ring(span);
    }
  }

 private:
  static constexpr int kForm = form_code(Kind::kDim, Kind::kForm.bits);
  // Lanes that differ in this bit have the same columns of x (0: none do).
  static constexpr int kTwinBit = kTable == UnitLaunch::k8x256 ? 0 : Kind::kSums ? 2 : 16;
  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp() { return threadIdx.x / 32; }

  __device__ void fetch_codebook() {
    if constexpr (Kind::kSums)
      fetch_codewords<Kind::kDim>(reinterpret_cast<const __half*>(a_.tables.codebook[kTable]),
                                  a_.n_codes[kTable], word_);
    else if (threadIdx.x == 0)
      fetch_tables<kForm>(a_.tables, shared_, &s_.table);
  }
  // Of units, the codebook's other copies; prepare's barriers are what makes them seen.
  __device__ void copy_tables() const {
    if constexpr (!Kind::kSums) {
      const TableLoader<256, kForm> loader(a_.tables, shared_, threadIdx.x, kSliceThreads);
      await_arrivals(&s_.table, 0);
      loader.copy();
    }
  }
  __device__ void begin_ring(const SliceSpan& span) {
    fetched_ = {span, per_matrix_, n_slices_, warp()};
    fetched_slice_ =
        static_cast<unsigned>(fetched_.slice * unit_tiles(a_.n_rows)) * Kind::kUnitBytes;
    if (lane() == 0) {
#pragma unroll 1
      for (int i = 0; i < Kind::kStages; ++i) fetch((stage_ + i) % Kind::kStages);
    }
    __syncwarp();
  }
  // By one lane, once all have read what the stage held: the source comes out of shared memory in
  // order, so it arrives after the unit has been read.
  __device__ void fetch(int stage) {
    if (fetched_.left == 0) return;
    const unsigned char* const volatile* source = s_.work.source + fetched_.matrix;
    std::uint64_t* full = &s_.full[warp()][stage];
    int n_bytes = Kind::kJobBytes;
    if (Kind::kTiles > 1 && fetched_.job * Kind::kTiles + 1 == unit_tiles(a_.n_rows))
      n_bytes = Kind::kUnitBytes;
    expect_arrivals(full, n_bytes);
    copy_later(ring_ + stage * Kind::kJobBytes,
               *source + (fetched_slice_ + static_cast<unsigned>(fetched_.job) * Kind::kJobBytes),
               n_bytes, full);
    fetched_.next(per_matrix_);
  }

  // The pair of columns that a thread has of a span's x.
  __device__ float2 input(const SliceSpan& span) const {
    const int matrix = kDown ? quotient(span.slice, n_slices_) : 0;
    const int column = (span.slice - matrix * n_slices_) * Kind::kColumns + column_of_thread();
    if constexpr (kDown) return hidden(matrix, column);
    if (column >= a_.n_cols) return {0, 0};
    return *reinterpret_cast<const float2*>(
        a_.x + static_cast<std::size_t>(blockIdx.y) * a_.n_cols + column);
  }
  // Of units a word is (step, which half of a codeword, lane's low four bits), the operand's.
  static __device__ int column_of_thread() {
    if constexpr (Kind::kSums) return pair_column<Kind::kDim>(warp(), lane());
    const int l = operand_lane();
    return warp() * 32 + l % 4 * 8 + operand_half() * 4 + l / 8 * 2;
  }
  // Threads of a warp: high and low parts of what lanes without and with bit 2 have.
  static __device__ int operand_lane() {
    return (lane() & 3) | (lane() >> 4 & 1) << 2 | (lane() & 8);
  }
  static __device__ int operand_half() { return lane() >> 2 & 1; }

  // silu(gate) · up of columns [column, column + 1] of a slot. Of twins one adds up gate, the other
  // up.
  __device__ float2 hidden(int matrix, int column) const {
    const int padded = sums_padded(a_.n_cols), slot = s_.work.matrix[matrix];
    const std::size_t stride = static_cast<std::size_t>(a_.most_x_slices) * padded;
    const float* gate =
        a_.x + (static_cast<std::size_t>(blockIdx.y) * a_.top_k + slot) * 2 * stride + column;
    const auto sum = [&](int which) {
      if (column >= a_.n_cols) return float2{0, 0};
      return sum_pair(gate + which * stride, s_.work.x_slices[matrix][which], padded);
    };
    float2 g, u;
    if constexpr (kTwinBit == 0) {
      g = sum(0), u = sum(1);
    } else {
      constexpr unsigned kAll = 0xFFFFFFFFu;
      const bool is_up = (lane() & kTwinBit) != 0;
      const float2 mine = sum(is_up ? 1 : 0);
      const float2 other = {__shfl_xor_sync(kAll, mine.x, kTwinBit),
                            __shfl_xor_sync(kAll, mine.y, kTwinBit)};
      g = is_up ? other : mine, u = is_up ? mine : other;
    }
    return {silu(g.x) * u.x, silu(g.y) * u.y};
  }

  __device__ void prepare(float2 x) {
    unsigned char* const input = shared_ + Kind::kTableBytes;
    if constexpr (Kind::kSums) {
      uint2* right = reinterpret_cast<uint2*>(input);
      undo_ = split_slice<Kind::kDim>(right, s_.largest, x);
      make_table<Kind::kDim, 4>(shared_, right, word_);
      __syncthreads();
    } else {
      unsigned* words = reinterpret_cast<unsigned*>(input);
      part_.unit = split_words(words, s_.largest, x, (lane() & kTwinBit) != 0);
      const int l = lane() & 15, of = (l & 3) | (l >> 2 & 1) << 4 | (l & 8);
#pragma unroll
      for (int i = 0; i < 16; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) part_.right[i][half] = words[i * 32 + of + half * 4];
    }
  }

  __device__ void multiply(const SliceSpan& span) {
    const int padded = sums_padded(a_.n_rows), n_matrices = (kDown ? 1 : 2) * a_.top_k;
    SliceJobs<kDown> jobs(span, per_matrix_, n_slices_, warp());
    float* out =
        a_.sums +
        (static_cast<std::size_t>(blockIdx.y) * n_matrices * a_.most_slices + jobs.slice) * padded;
    const auto place = [&] {
      return out + static_cast<std::size_t>(s_.work.matrix[jobs.matrix] * a_.most_slices) * padded +
             jobs.job * (Kind::kTiles * kVqUnitRows);
    };
    if constexpr (Kind::kSums) {
      for (; jobs.left > 0; jobs.next(per_matrix_)) {
        const float sum = sum_job();
        const int row = lane() / 8 * kVqUnitRows + sums_row(lane());
        if (lane() < 16 && jobs.job * 16 + row < padded) place()[row] = sum;
      }
    } else if constexpr (kDown) {
      for (; jobs.left > 0; jobs.next(per_matrix_)) {
        const float sum = dot(next_codes());
        if (lane() % 4 == 0) place()[lane() / 4] = sum;
      }
    } else if (jobs.left > 0) {
      // Codes are read a job ahead, for which down has no registers left.
      Codes codes = next_codes();
      for (; jobs.left > 0; jobs.next(per_matrix_)) {
        Codes ahead = codes;
        if (jobs.left > 1) ahead = next_codes();
        const float sum = dot(codes);
        if (lane() % 4 == 0) place()[lane() / 4] = sum;
        codes = ahead;
      }
    }
  }
  // Of two tiles; lanes 0 to 7 return rows of the first, 8 to 15 of the second.
  __device__ float sum_job() {
    const unsigned char* units = await_stage();
    SumsUnit<Kind::kDim> codes[2];
    codes[0].read(units, lane());
    codes[1].read(units + Kind::kUnitBytes, lane());
    free_stage();
    const float a = sum_unit<Kind::kDim>(shared_, codes[0], lane()),
                b = sum_unit<Kind::kDim>(shared_, codes[1], lane());
    return (lane() & 8 ? b : a) * undo_;
  }
  using Codes = UnitCodes<Kind::kDim, Kind::kForm.bits, kSliceUnitScales>;
  __device__ float dot(const Codes& codes) const {
    return unit_dot<Kind::kDim, Kind::kForm.bits, kSliceUnitScales, 256>(shared_, codes, part_,
                                                                         lane());
  }
  __device__ Codes next_codes() {
    Codes codes;
    codes.read(await_stage(), lane());
    free_stage();
    return codes;
  }
  __device__ const unsigned char* await_stage() {
    await_arrivals(&s_.full[warp()][stage_], phase_);
    __syncwarp();  // lanes may leave the wait one by one
    return ring_ + stage_ * Kind::kJobBytes;
  }
  __device__ void free_stage() {
    __syncwarp();
    if (lane() == 0) fetch(stage_);
    if (++stage_ == Kind::kStages) stage_ = 0, phase_ ^= 1;
  }

  const SliceArgs& a_;
  SliceShared& s_;
  unsigned char* const shared_;
  unsigned char* const ring_;  // the warp's
  const int n_slices_, per_matrix_;
  SliceJobs<kDown> fetched_;
  unsigned fetched_slice_ = 0;  // bytes
  int stage_ = 0;
  unsigned phase_ = 0;
  unsigned word_[2];  // sums: of the codebook, what the warp makes the table of
  float undo_ = 0;
  XPart part_;  // units
};

constexpr int most_slice_bytes() {
  int most = 0;
  for (const int n :
       {SliceKind<UnitLaunch::k8x256>::kSharedBytes, SliceKind<UnitLaunch::k4x256>::kSharedBytes,
        SliceKind<UnitLaunch::k8x4096>::kSharedBytes, SliceKind<UnitLaunch::k4x4096>::kSharedBytes})
    most = n > most ? n : most;
  return most;
}
static_assert(most_slice_bytes() + sizeof(SliceShared) <= kSlicesSharedBytes);

// Grid: blocks that share a token's work, tokens.
template <bool kDown>
__global__ void __launch_bounds__(kSliceThreads, 1)
    multiply_slices(const __grid_constant__ SliceArgs a) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ SliceShared s;
  if (threadIdx.x % 32 == 0) {
    for (int i = 0; i < kMostSliceStages; ++i) init_arrivals(&s.full[threadIdx.x / 32][i]);
    if (threadIdx.x == 0) init_arrivals(&s.table);
    publish_barriers();
  }
  // Gate and up follow the router, whose choice they read; down follows them.
  if (!kDown) {
    prefetch_experts(a);
    await_previous();
    let_next_begin();
  }
  FoundSources<kDown> found;
  if (threadIdx.x < 32) found = find_work<kDown>(a, s.work);
  __syncthreads();
  switch (s.work.kind) {
    case UnitLaunch::k8x256:
      return SliceBlock<UnitLaunch::k8x256, kDown>(a, s, shared).run(found);
    case UnitLaunch::k4x256:
      return SliceBlock<UnitLaunch::k4x256, kDown>(a, s, shared).run(found);
    case UnitLaunch::k8x4096:
      return SliceBlock<UnitLaunch::k8x4096, kDown>(a, s, shared).run(found);
    case UnitLaunch::k4x4096:
      return SliceBlock<UnitLaunch::k4x4096, kDown>(a, s, shared).run(found);
    default:
      __trap();
  }
}

}  // namespace assay::kernels
