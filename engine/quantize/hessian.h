// The Hessian of a linear layer's output error: H = Σ x xᵀ over the calibration tokens x that the
// layer sees (GPTQ, Frantar 2022, arXiv:2210.17323, without its factor 2, which changes no choice).
// For weights W and their quantised form Q the summed squared output error is
// tr((W − Q) H (W − Q)ᵀ).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/quantize/stop.h"

namespace assay::engine {

class Hessian {
 public:
  explicit Hessian(int dim);

  // Adds Σ x xᵀ of x (n_tokens, dim). Tiles of the matrix are shared out to the pool; within a tile
  // blocks of 512 tokens are added one after the other in double precision, so the bits depend on
  // the tokens of each call, never on the threads. `stop` is asked before every block; the sum is
  // then of no use.
  Result<void> add(const float* x, int n_tokens, ThreadPool& pool, Stop* stop = nullptr);

  int dim() const { return dim_; }
  double n_samples() const { return n_samples_; }
  double at(int row, int col) const {
    return row <= col ? upper_[index(row, col)] : upper_[index(col, row)];
  }
  std::vector<double> diagonal() const;

 private:
  friend Result<Hessian> shrink(const Hessian&, const Hessian&, double, Stop*);
  std::size_t index(int row, int col) const {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(dim_) +
           static_cast<std::size_t>(col);
  }
  int dim_;
  double n_samples_ = 0;
  std::vector<double> upper_;  // (dim, dim), row <= col
};

// The Hessian of an average token (n_samples 1) of an expert that saw few: its own mean weighted by
// n / (n + strength), the rest its layer's mean. `strength` is in samples: an expert with that many
// tokens is believed by half, one with none is its layer. An error if neither saw a token or the
// dimensions differ. `stop` is asked before every row.
Result<Hessian> shrink(const Hessian& expert, const Hessian& layer, double strength,
                       Stop* stop = nullptr);

// H + damping I = R Rᵀ with R upper triangular, in float32. With the error e of the columns to the
// left, column j of e R is what they do to the output along j, and the squared norm of (W − Q) R is
// the error itself. GPTQ's U (H⁻¹ = Uᵀ U) is R⁻¹, so no inverse is ever formed; the sweep over R is
// the same as GPTQ's over U (QuIP, Chee 2023, arXiv:2307.13304, theorem 6).
class HessianFactor {
 public:
  static constexpr int kPanelCols = 128;

  int dim() const { return dim_; }
  int n_panels() const { return (dim_ + kPanelCols - 1) / kPanelCols; }
  // (rows 0 … the last row of the panel's diagonal block, kPanelCols): columns from kPanelCols * p.
  // Zero below the diagonal and beyond dim.
  const float* panel(int p) const { return panels_.data() + panel_offset(p); }
  float at(int row, int col) const {
    return panel(col / kPanelCols)[row * kPanelCols + col % kPanelCols];
  }
  // Which column of the matrix is the factor's `col`.
  int column(int col) const { return columns_[static_cast<std::size_t>(col)]; }
  double damping() const { return damping_; }              // what was added to the diagonal
  double damping_share() const { return damping_share_; }  // of the mean diagonal

 private:
  friend Result<HessianFactor> factor(const Hessian&, double, std::string_view, Stop*,
                                      std::vector<int>);
  static std::size_t panel_offset(int p) {
    return static_cast<std::size_t>(kPanelCols) * kPanelCols * static_cast<std::size_t>(p) *
           static_cast<std::size_t>(p + 1) / 2;
  }
  int dim_ = 0;
  double damping_ = 0, damping_share_ = 0;
  std::vector<float> panels_;
  std::vector<int> columns_;
};

// The columns by what goes through them, most first (GPTQ's activation order): whole sub-vectors of
// `dim` columns by Σ of their diagonal, the left one first among equals.
std::vector<int> activation_order(const Hessian& h, int dim);

// Damps by `damping_share` (GPTQ: 0.01) of the mean of the diagonal's non-zero elements; where
// rounding or few samples leave the matrix indefinite, the share is raised tenfold, three times at
// most. A dead column (an input that was always zero) has the damping for its diagonal: it couples
// to nothing and is rounded to its nearest. A Hessian of zeros is damped by 1: plain nearest.
// Errors name the matrix `name`. `stop` is asked before every row and every block of columns.
// `columns` are all of them in the order in which they are swept; empty: as they lie.
Result<HessianFactor> factor(const Hessian& h, double damping_share, std::string_view name,
                             Stop* stop = nullptr, std::vector<int> columns = {});

}  // namespace assay::engine
