// Data and launches of the products with codes, and of the dense ones that they are held against.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/aligned_array.h"
#include "kernels/bench/bench_data.h"
#include "kernels/project.h"
#include "kernels/vq.h"

namespace assay::kernels {

// Bytes of weights, read in turn: so many that none is met again while a cache still holds it.
inline std::size_t vq_working_set() {
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::max(std::size_t{256} << 20, 2 * static_cast<std::size_t>(std::max(cache, 0L)));
}
inline constexpr int kVqMaxTokens = 32;

// One launch: gate and up of the eight selected experts read the same inputs; every expert's down
// has inputs of its own.
struct VqBenchShape {
  const char* name;
  int n_rows, n_cols, n_matrices;
  bool same_inputs;
};
inline constexpr VqBenchShape kVqShapes[] = {{"gate_up", 2048, 6144, 16, true},
                                             {"down", 6144, 2048, 8, false}};

struct VqTier {
  const char* name;
  int dim, n_codes, index_bits;
};
inline constexpr VqTier kVqTiers[] = {
    {"1", 8, 256, 8}, {"1.5", 8, 4096, 12}, {"2", 4, 256, 8}, {"3", 4, 4096, 12}};

inline ThreadPool& vq_pool() {
  static ThreadPool threads(0);
  return threads;
}

// Inputs and outputs of one launch.
struct VqRows {
  explicit VqRows(const VqBenchShape& s)
      : x(bench_floats(static_cast<std::size_t>(s.n_matrices) * kVqMaxTokens * s.n_cols, 1)),
        y(static_cast<std::size_t>(s.n_matrices) * kVqMaxTokens * s.n_rows) {
    for (int m = 0; m < s.n_matrices; ++m)
      for (int t = 0; t < kVqMaxTokens; ++t) {
        const auto row = static_cast<std::size_t>(s.same_inputs ? 0 : m) * kVqMaxTokens + t;
        xs.push_back(&x[row * s.n_cols]);
        ys.push_back(&y[(static_cast<std::size_t>(m) * kVqMaxTokens + t) * s.n_rows]);
      }
  }
  const float* const* inputs(int m) const {
    return &xs[static_cast<std::size_t>(m) * kVqMaxTokens];
  }
  float* const* outputs(int m) const { return &ys[static_cast<std::size_t>(m) * kVqMaxTokens]; }
  std::vector<float> x, y;
  std::vector<const float*> xs;
  std::vector<float*> ys;
};

// Random codes, at least n_bytes of them: every byte is an index of its own or a part of one.
struct VqSet {
  VqSet(const VqBenchShape& s, const VqTier& t, std::size_t n_bytes)
      : book(bench_floats(static_cast<std::size_t>(t.dim) * t.n_codes, 2)) {
    w.n_rows = s.n_rows, w.n_cols = s.n_cols, w.dim = t.dim, w.n_codes = t.n_codes;
    w.index_bits = t.index_bits, w.n_books = 1, w.group = 128;
    codes.resize(std::size_t{4} * w.row_words() * s.n_rows);
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::byte>(uniform_at(3, 0, i) * 256);
    scales.resize(std::size_t{2} * s.n_rows * w.n_groups());
    for (std::size_t i = 0; i < scales.size(); i += 2) {  // near 1 in binary16
      scales[i] = static_cast<std::byte>(uniform_at(4, 0, i) * 256);
      scales[i + 1] = std::byte{0x3C};
    }
    w.codes = codes.data(), w.scales = scales.data(), w.codebook = book.data();
    std::size_t bytes = 0;
    while (bytes < n_bytes || packed.size() % static_cast<std::size_t>(s.n_matrices) != 0) {
      packed.push_back(PackedVq::pack(arena, w));
      bytes += packed.back().bytes();
    }
  }
  VqMatrix w;
  std::vector<float> book;
  std::vector<std::byte> codes, scales;
  WeightArena arena;
  std::vector<PackedVq> packed;
};

struct DenseSet {
  DenseSet(const VqBenchShape& s, std::size_t n_bytes)
      : raw(static_cast<std::size_t>(s.n_rows) * s.n_cols) {
    for (std::size_t i = 0; i < raw.size(); ++i)  // every bit pattern is a small number
      raw[i] = static_cast<std::uint16_t>(
          (static_cast<std::uint32_t>(i * 2654435761u) >> 16 & 0x807Fu) | 0x3D00u);
    std::size_t bytes = 0;
    while (bytes < n_bytes || packed.size() % static_cast<std::size_t>(s.n_matrices) != 0) {
      packed.push_back(
          PackedMatrix::pack(arena, {raw.data(), WeightType::kBf16, s.n_rows, s.n_cols}));
      bytes += packed.back().bytes();
    }
  }
  std::vector<std::uint16_t> raw;
  WeightArena arena;
  std::vector<PackedMatrix> packed;
};

// The n matrices whose turn it is.
template <class Matrix>
std::span<const Matrix> take_turn(const std::vector<Matrix>& all, int n, std::size_t& next) {
  const auto taken = std::span(all).subspan(next, static_cast<std::size_t>(n));
  next = (next + taken.size()) % all.size();
  return taken;
}

// Shares the blocks out in some parts a thread: one, as the engine does with codes, whose tables
// cost as much for a part as for all; two with dense weights, so that uneven cores even out.
template <class Work>
void share_out(int n_blocks, int step, int n_parts_each, const Work& work) {
  const int n_parts = n_parts_each * vq_pool().n_threads();
  vq_pool().parallel_for(n_parts, [&](int part) {
    const auto edge = [&](int p) {
      return p == n_parts
                 ? n_blocks
                 : static_cast<int>(static_cast<long>(n_blocks) * p / n_parts) / step * step;
    };
    work(edge(part), edge(part + 1));
  });
}

// n_times: over the same matrices, of which every thread keeps its share.
inline void launch_vq(CpuTarget target, VqFetch fetch, const VqBenchShape& s,
                      std::span<const PackedVq> w, const VqRows& rows, int n_tokens,
                      int n_times = 1) {
  share_out(w[0].n_blocks(), 1, 1, [&](int first, int last) {
    thread_local AlignedArray<float> scratch;
    scratch.reserve(vq_scratch());
    std::vector<VqProduct> products;
    for (std::size_t m = 0; m < w.size(); ++m)
      products.push_back({&w[m], rows.outputs(static_cast<int>(m)), first, last});
    const std::size_t n_together = s.same_inputs ? products.size() : 1;
    for (int i = 0; i < n_times; ++i)
      for (std::size_t m = 0; m < products.size(); m += n_together)
        vq_project_cpu(target, {.products = std::span(products).subspan(m, n_together),
                                .x = rows.inputs(static_cast<int>(m)),
                                .n_tokens = n_tokens,
                                .accumulate = false,
                                .scratch = scratch.data(),
                                .fetch = fetch});
  });
}

inline void launch_dense(CpuTarget target, std::span<const PackedMatrix> w, const VqRows& rows,
                         int n_tokens) {
  share_out(w[0].n_blocks(), PackedMatrix::kGroupBlocks, 2, [&](int first, int last) {
    for (std::size_t m = 0; m < w.size(); ++m)
      project_cpu(target, {.w = &w[m],
                           .x = rows.inputs(static_cast<int>(m)),
                           .y = rows.outputs(static_cast<int>(m)),
                           .n_tokens = n_tokens,
                           .first_block = first,
                           .last_block = last,
                           .accumulate = false});
  });
}

// Whether the first 64 rows of a launch's first product are right.
inline bool rows_are_right(const std::vector<float>& expected, const float* got, int n_cols) {
  return relative_error(expected, {got, got + expected.size()}) < n_cols * 0x1p-21;
}
inline bool is_right(const VqSet& set, const VqRows& rows) {
  VqMatrix some = set.w;
  some.n_rows = 64;
  std::vector<float> expected(64);
  project_reference(some, rows.inputs(0)[0], 1, some.n_cols, expected.data(), 64, false);
  return rows_are_right(expected, rows.outputs(0)[0], some.n_cols);
}
inline std::vector<float> expected_rows(const DenseSet& set, const VqRows& rows, int n_cols) {
  std::vector<float> expected(64);
  project_reference({set.raw.data(), WeightType::kBf16, 64, n_cols}, rows.inputs(0)[0], 1, n_cols,
                    expected.data(), 64, false);
  return expected;
}

}  // namespace assay::kernels
