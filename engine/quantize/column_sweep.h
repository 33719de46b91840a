// GPTQ's walk over the columns of a matrix, with error feedback (Frantar 2022, arXiv:2210.17323),
// for quantisers that take one or several columns at a time, in the order of the factor's columns.
//
// With H + damping I = R Rᵀ (hessian.h) and e = w − q of a row, the squared output error is
// |e R|². Its columns are final from left to right: those of block b are e_b R_bb + s_b, where
// s_b = Σ_{k left of b} e_k R[k, b] is known once the columns to the left are.
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/quantize/hessian.h"
#include "engine/quantize/stop.h"

namespace assay::engine {

// What a sweep needs: a factor of n_cols columns, and weights that are finite.
Result<void> check_sweep(const float* w, int n_rows, int n_cols, const HessianFactor& factor,
                         std::string_view name, Stop* stop);

class ColumnSweep {
 public:
  static constexpr int kLanes = 64;  // rows that are worked on together
  static constexpr int kMaxDim = 16;

  // w (n_rows, n_cols), row-major. `stop` is asked before 64 rows go through a panel, and makes
  // what is run an error.
  ColumnSweep(const float* w, int n_rows, int n_cols, const HessianFactor& factor, ThreadPool& pool,
              Stop* stop);

  int n_chunks() const { return n_chunks_; }
  int n_rows_of(int chunk) const { return std::min(kLanes, n_rows_ - chunk * kLanes); }

  // `dim` columns of 64 rows from `col` on; element (i, lane) of each array is at i * kLanes +
  // lane.
  struct Block {
    int chunk, col;
    int column;      // where col lies in w: the first of `dim` neighbours
    const float* w;  // weights
    float* s;        // what errors to the left do to these columns, then to the panel's others
    float* q;        // to write: the quantised weights
    int first, end;  // columns of the block's panel
    std::uint8_t* origin;  // for inherit()
  };
  // Calls prepare(first, end) once for every panel of columns, and then choose(block) for each of
  // its blocks and every chunk of rows, chunks in parallel.
  template <class Prepare, class Choose>
  Result<void> run(int dim, const Prepare& prepare, const Choose& choose);

  // For a choose() whose lanes are several codings of one row: before it writes q, lane i takes
  // over all that lane from[i] has done to the left of the block.
  void inherit(const Block& block, const std::uint8_t* from);

  // Of the last run, or of the columns done: |e R|² of each row, and q (n_rows, n_cols).
  const std::vector<double>& row_error() const { return row_error_; }
  std::vector<float> quantised() const;
  // |w R|² of each row: the error of a matrix of zeros.
  Result<std::vector<double>> row_energy();

 private:
  float* at(std::vector<float>& v, int chunk, int col) const {
    return &v[(static_cast<std::size_t>(chunk) * static_cast<std::size_t>(n_cols_) +
               static_cast<std::size_t>(col)) *
              kLanes];
  }
  void begin_panel(int chunk, int first, int n, float* sums);
  void end_panel(int chunk, int first, const std::uint8_t* origin);
  void end_block(int chunk, int col, int dim, int first, int n, float* sums, const float* q);

  int n_rows_, n_cols_, n_chunks_;
  const HessianFactor& factor_;
  ThreadPool& pool_;
  Stop* stop_;
  std::vector<float> w_, e_;  // (chunk, column, lane)
  std::vector<double> row_error_;
};

template <class Prepare, class Choose>
Result<void> ColumnSweep::run(int dim, const Prepare& prepare, const Choose& choose) {
  constexpr int kPanel = HessianFactor::kPanelCols;
  row_error_.assign(static_cast<std::size_t>(n_rows_), 0.0);
  for (int first = 0; first < n_cols_; first += kPanel) {
    const int n = std::min(kPanel, n_cols_ - first);
    prepare(first, first + n);
    ASSAY_TRY_VOID(parallel_for(pool_, stop_, n_chunks_, [&](int chunk) {
      std::vector<float> sums(static_cast<std::size_t>(n) * kLanes, 0.0f);
      float q[kMaxDim * kLanes];
      std::uint8_t origin[kLanes];
      std::iota(origin, origin + kLanes, std::uint8_t{0});
      begin_panel(chunk, first, n, sums.data());
      for (int col = first; col < first + n; col += dim) {
        choose(Block{chunk, col, factor_.column(col), at(w_, chunk, col),
                     &sums[static_cast<std::size_t>(col - first) * kLanes], q, first, first + n,
                     origin});
        end_block(chunk, col, dim, first, n, sums.data(), q);
      }
      end_panel(chunk, first, origin);
    }));
  }
  return {};
}

}  // namespace assay::engine
