// The kernel of moe_cuda.cu for experts in units (vq_units.h): gate and up with silu(gate) · up, or
// down with the experts' weighted sum. A block has all tables of the launch and a share of the rows
// of every chosen expert, for one token after the other; one warp fetches units into a ring, the
// others keep their 512 columns of x in registers, and a row's parts are added up in order.
#pragma once

#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_check.cuh"
#include "kernels/device_matrix.h"
#include "kernels/row_dot.cuh"
#include "kernels/unit_dot.cuh"

namespace assay::kernels {

constexpr int kUnitWarps = 16;  // that multiply, at most
constexpr int kUnitStages = 8;  // at most
constexpr int kMaxTopUnits = 32;

struct UnitArgs {
  const DeviceMatrix* experts;  // (n_experts, 3)
  const int* expert;            // (n_tokens, top_k)
  const float* weight;          // down: (n_tokens, top_k)
  const float* x;               // (n_tokens, n_cols); down: (n_tokens * top_k, n_cols)
  float* y;                     // (n_tokens * top_k, n_rows); down: residual (n_tokens, n_rows)
  const float* shared;          // down: (n_tokens, n_rows)
  int n_tokens, top_k, n_rows, n_cols;
  UnitTables tables;
  int parts, lines, stages, job_bytes;
  int ring_at, sums_at;  // bytes of shared memory
  // What a block does between two flushes of its sums, at most: of gate and up (slot, tile) pairs,
  // of down tiles.
  int round;
  int arrivals;  // of a warp that has read a stage
};

// What a block does of a token: of all items (pairs of slot and tile; tiles of down) those in
// [first, last), a round at a time. In a round, step s is job s * lines + line of a line: gate and
// up of pair after pair; of down the line's expert of one group of experts after the other, each
// with tile after tile.
template <bool kDown>
struct UnitShare {
  int tiles, first, last, lines, top_k;

  __device__ explicit UnitShare(const UnitArgs& a)
      : tiles(unit_tiles(a.n_rows)), lines(a.lines), top_k(a.top_k) {
    const long long n_items = kDown ? tiles : static_cast<long long>(tiles) * a.top_k;
    first = static_cast<int>(n_items * blockIdx.x / gridDim.x);
    last = static_cast<int>(n_items * (blockIdx.x + 1) / gridDim.x);
  }
  __device__ int groups() const { return (top_k + lines - 1) / lines; }  // of experts
  __device__ int steps(int n_items) const {
    return kDown ? groups() * n_items : (2 * n_items + lines - 1) / lines;
  }
};

// The tokens of a block: those of a long batch are shared out along the grid's y.
struct UnitTokens {
  int first, last;

  __device__ explicit UnitTokens(int n_tokens)
      : first(static_cast<int>(static_cast<long long>(n_tokens) * blockIdx.y / gridDim.y)),
        last(static_cast<int>(static_cast<long long>(n_tokens) * (blockIdx.y + 1) / gridDim.y)) {}
};

// The ring's state, in shared memory, and whole lines of it: what is behind is aligned to them.
// `form` says what a line of a stage holds: 0 nothing.
struct alignas(128) UnitRing {
  std::uint64_t full[kUnitStages], empty[kUnitStages], tables;
  unsigned char form[kUnitStages][kUnitWarps];
  float weight[kMaxTopUnits];
  // Of the token in hand, for the fetching warp: gate and up of each slot, or down.
  struct Source {
    const unsigned char* units;
    int form, bytes;  // of one tile
  } source[2 * kMaxTopUnits];
};

// A stage of the ring, one after the other.
struct UnitStage {
  int n_stages, at = 0;
  unsigned phase = 0;
  __device__ void next() {
    if (++at == n_stages) at = 0, phase ^= 1;
  }
};

// By one warp, a lane to a line.
template <bool kDown>
__device__ inline void fetch_units(const UnitArgs& a, UnitRing& ring, unsigned char* stages) {
  const UnitShare<kDown> share(a);
  const UnitTokens tokens(a.n_tokens);
  const int lane = threadIdx.x;
  UnitStage stage{a.stages, 0, 1};  // what was never full counts as emptied
  for (int token = tokens.first; token < tokens.last; ++token) {
    for (int i = lane; i < (kDown ? 1 : 2) * a.top_k; i += 32) {
      const int slot = token * a.top_k + (kDown ? i : i / 2);
      // Down reads the choice before it has waited for anybody: from L2, as other blocks do.
      const DeviceMatrix& m = a.experts[3 * __ldcg(a.expert + slot) + (kDown ? 2 : i % 2)];
      ring.source[i] = {static_cast<const unsigned char*>(m.values),
                        form_code(m.units.dim, m.units.bits), a.parts * m.units.bytes()};
    }
    __syncwarp();
    for (int begin = share.first; begin < share.last; begin += a.round) {
      const int n_items = min(a.round, share.last - begin);
      for (int step = 0, n_steps = share.steps(n_items); step < n_steps; ++step) {
        if (lane < a.lines) {
          int source, tile;
          bool has_job;
          if constexpr (kDown) {
            source = step / n_items * a.lines + lane;
            tile = begin + step % n_items;
            has_job = source < a.top_k;
          } else {
            const int job = step * a.lines + lane, pair = begin + job / 2;
            source = pair / share.tiles * 2 + job % 2;
            tile = pair % share.tiles;
            has_job = job < 2 * n_items;
          }
          await_arrivals(&ring.empty[stage.at], stage.phase);
          const UnitRing::Source s =
              has_job ? ring.source[source] : UnitRing::Source{nullptr, 0, 0};
          ring.form[stage.at][lane] = static_cast<unsigned char>(s.form);
          expect_arrivals(&ring.full[stage.at], s.bytes);
          if (has_job)
            copy_later(stages + (stage.at * a.lines + lane) * a.job_bytes,
                       s.units + static_cast<size_t>(tile) * s.bytes, s.bytes,
                       &ring.full[stage.at]);
        }
        stage.next();
      }
    }
    __syncwarp();  // before the next token's sources
  }
}

// The warps that multiply, and no other.
__device__ inline void await_multipliers(int n_threads) {
  asm volatile("bar.sync 1, %0;" ::"r"(n_threads) : "memory");
}

// kOnly: the form of all units, 0 if they differ.
template <int kScales, int kStride, int kOnly>
__device__ inline float unit_dot_of(int form, const UnitArgs& a, const unsigned char* shared,
                                    const unsigned char* unit, const XPart& x, int lane) {
  const auto dot = [&]<int kForm>(std::integral_constant<int, kForm>) {
    constexpr int kDim = kForm >= 16 ? 8 : 4, kBits = kForm % 16;
    constexpr UnitLaunch::TableOf kTable =
        kDim == 8 ? (kBits == 8 ? UnitLaunch::k8x256 : UnitLaunch::k8x4096)
                  : (kBits == 8 ? UnitLaunch::k4x256 : UnitLaunch::k4x4096);
    UnitCodes<kDim, kBits, kScales> codes;
    codes.read(unit, lane);
    return unit_dot<kDim, kBits, kScales, kStride>(shared + a.tables.at[kTable], codes, x, lane);
  };
  if constexpr (kOnly != 0) return dot(std::integral_constant<int, kOnly>());
  switch (form) {
    case form_code(8, 8):
      return dot(std::integral_constant<int, form_code(8, 8)>());
    case form_code(4, 8):
      return dot(std::integral_constant<int, form_code(4, 8)>());
    case form_code(8, 12):
      return dot(std::integral_constant<int, form_code(8, 12)>());
    case form_code(8, 13):
      return dot(std::integral_constant<int, form_code(8, 13)>());
    case form_code(4, 12):
      return dot(std::integral_constant<int, form_code(4, 12)>());
    case form_code(4, 13):
      return dot(std::integral_constant<int, form_code(4, 13)>());
    case form_code(4, 14):
      return dot(std::integral_constant<int, form_code(4, 14)>());
    default:
      __trap();
  }
}

// A row's parts, in order, with the loads of several ahead.
__device__ inline float sum_parts(const float* of_row, int n_parts) {
  constexpr int kAhead = 4;
  float sum = 0;
  for (int first = 0; first < n_parts; first += kAhead) {
    float part[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) part[i] = of_row[min(first + i, n_parts - 1) * kVqUnitRows];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i < n_parts) sum += part[i];
  }
  return sum;
}
// The sums of a round's jobs, (n_jobs, parts, 8 rows), each row's into its first part.
__device__ inline void add_parts(const UnitArgs& a, float* sums, int n_jobs, int thread,
                                 int n_threads) {
  for (int i = thread; i < n_jobs * kVqUnitRows; i += n_threads) {
    float* of_row = sums + i / kVqUnitRows * a.parts * kVqUnitRows + i % kVqUnitRows;
    *of_row = sum_parts(of_row, a.parts);
  }
}

// Jobs are gate and up of one pair after the other.
__device__ inline void write_hidden(const UnitArgs& a, const float* sums, int token, int begin,
                                    int n_pairs, int thread, int n_threads) {
  const int tiles = unit_tiles(a.n_rows), job = a.parts * kVqUnitRows;
  for (int i = thread; i < n_pairs * kVqUnitRows; i += n_threads) {
    const int pair = begin + i / kVqUnitRows, r = i % kVqUnitRows;
    const int row = pair % tiles * kVqUnitRows + r;
    if (row >= a.n_rows) continue;
    const float* gate = sums + i / kVqUnitRows * 2 * job + r;
    a.y[static_cast<size_t>(token * a.top_k + pair / tiles) * a.n_rows + row] =
        silu(gate[0]) * gate[job];
  }
}

// What a thread's first row of a round meets, on its way while the round is computed.
struct CombineInputs {
  float residual = 0, shared = 0, weight = 0;

  __device__ void fetch(const UnitArgs& a, int token, int begin, int n_tiles, int thread) {
    const int row = begin * kVqUnitRows + thread;
    if (thread < n_tiles * kVqUnitRows && row < a.n_rows) {
      residual = a.y[static_cast<size_t>(token) * a.n_rows + row];
      shared = a.shared[static_cast<size_t>(token) * a.n_rows + row];
    }
    if (thread < a.top_k) weight = a.weight[token * a.top_k + thread];
  }
};

// Jobs are (slot, tile).
__device__ inline void write_combined(const UnitArgs& a, const float* sums, const float* weight,
                                      const CombineInputs& in, int token, int begin, int n_tiles,
                                      int thread, int n_threads) {
  const int job = a.parts * kVqUnitRows;
  for (int i = thread; i < n_tiles * kVqUnitRows; i += n_threads) {
    const float* of_slot = sums + i / kVqUnitRows * job + i % kVqUnitRows;
    const int row = begin * kVqUnitRows + i;
    if (row >= a.n_rows) continue;
    const size_t at = static_cast<size_t>(token) * a.n_rows + row;
    const float residual = i == thread ? in.residual : a.y[at],
                shared = i == thread ? in.shared : a.shared[at];
    float sum = 0;
#pragma unroll 8
    for (int k = 0; k < a.top_k; ++k) sum = fmaf(weight[k], of_slot[k * n_tiles * job], sum);
    a.y[at] = residual + sum + shared;
  }
}

// By all other warps: warp = line * parts + part.
template <bool kDown, int kScales, int kStride, int kOnly>
__device__ inline void multiply_units(const UnitArgs& a, UnitRing& ring, unsigned char* shared) {
  const UnitShare<kDown> share(a);
  const UnitTokens tokens(a.n_tokens);
  const int lane = threadIdx.x, line = threadIdx.y / a.parts, part = threadIdx.y % a.parts,
            thread = threadIdx.y * 32 + lane, n_threads = a.parts * a.lines * 32;
  float* sums = reinterpret_cast<float*>(shared + a.sums_at);

  // The part of x of a token, and of down of the line's expert of a group.
  const auto fetch_x = [&](RawPart& raw, int token, int group) {
    const int k = group * a.lines + line, column = part * kVqUnitColumns;
    const size_t row = kDown ? static_cast<size_t>(token) * a.top_k + min(k, a.top_k - 1) : token;
    fetch_part(raw, a.x + row * a.n_cols + column, a.n_cols - column, lane);
  };
  XPart x;
  int token_of_x = tokens.first, group_of_x = 0;
  {
    const TableLoader<kStride, kOnly> loader(a.tables, shared, thread, n_threads);
    await_previous();
    RawPart raw;
    fetch_x(raw, token_of_x, 0);
    loader.store();
    await_arrivals(&ring.tables, 0);
    loader.copy();
    split_part(x, raw, lane);
  }
  let_next_begin();
  await_multipliers(n_threads);

  UnitStage stage{a.stages};
  for (int token = tokens.first; token < tokens.last; ++token)
    for (int begin = share.first; begin < share.last; begin += a.round) {
      const int n_items = min(a.round, share.last - begin);
      CombineInputs in;
      if constexpr (kDown) in.fetch(a, token, begin, n_items, thread);
      int group = 0, tile = 0;  // of down
      for (int step = 0, n_steps = share.steps(n_items); step < n_steps; ++step) {
        if (token != token_of_x || group != group_of_x) {
          RawPart raw;
          fetch_x(raw, token, group);
          split_part(x, raw, lane);
          token_of_x = token, group_of_x = group;
        }
        await_arrivals(&ring.full[stage.at], stage.phase);
        __syncwarp();  // lanes may leave the wait one by one
        const int form = ring.form[stage.at][line];
        if (form != 0) {
          const unsigned char* units =
              shared + a.ring_at + (stage.at * a.lines + line) * a.job_bytes;
          const int of = kOnly != 0 ? kOnly : form;
          const int unit_bytes = UnitForm{of >= 16 ? 8 : 4, of % 16, kScales}.bytes();
          const float sum = unit_dot_of<kScales, kStride, kOnly>(
              form, a, shared, units + part * unit_bytes, x, lane);
          const int job = kDown ? (group * a.lines + line) * n_items + tile : step * a.lines + line;
          if (lane % 4 == 0) sums[(job * a.parts + part) * kVqUnitRows + lane / 4] = sum;
        }
        __syncwarp();
        if (lane < a.arrivals) arrive(&ring.empty[stage.at]);
        stage.next();
        if (kDown && ++tile == n_items) tile = 0, ++group;
      }
      if (kDown && thread < a.top_k) ring.weight[thread] = in.weight;
      await_multipliers(n_threads);
      add_parts(a, sums, (kDown ? a.top_k : 2) * n_items, thread, n_threads);
      await_multipliers(n_threads);
      if constexpr (kDown)
        write_combined(a, sums, ring.weight, in, token, begin, n_items, thread, n_threads);
      else
        write_hidden(a, sums, token, begin, n_items, thread, n_threads);
      await_multipliers(n_threads);
    }
}

// Grid: shares of the rows, shares of the tokens. Block: 32 lanes by the warps that multiply and
// one that fetches. Shared memory: tables, ring, sums.
template <bool kDown, int kScales, int kStride, int kOnly>
__global__ void __launch_bounds__((kUnitWarps + 1) * 32, 1)
    moe_units(const __grid_constant__ UnitArgs a) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ UnitRing ring;
  const int n_warps = a.parts * a.lines;
  if (threadIdx.y == n_warps && threadIdx.x == 0) {
    for (int i = 0; i < a.stages; ++i) {
      init_arrivals(&ring.full[i], a.lines);
      init_arrivals(&ring.empty[i], n_warps * a.arrivals);
    }
    init_arrivals(&ring.tables);
    publish_barriers();
    fetch_tables<kOnly>(a.tables, shared, &ring.tables);
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.y) < n_warps) {
    multiply_units<kDown, kScales, kStride, kOnly>(a, ring, shared);
  } else {
    // Gate and up follow the router, whose choice they read; down follows them.
    if (!kDown) await_previous();
    fetch_units<kDown>(a, ring, shared + a.ring_at);
  }
}

}  // namespace assay::kernels
