#include "engine/quantize/column_sweep.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

constexpr int kLanes = ColumnSweep::kLanes;

bool is_identity(const std::uint8_t* from) {
  for (int lane = 0; lane < kLanes; ++lane)
    if (from[lane] != lane) return false;
  return true;
}

// Of n columns: lane i gets what lane from[i] had.
template <class Value>
void reorder(Value* values, int n, const std::uint8_t* from) {
  Value before[kLanes];
  for (int c = 0; c < n; ++c, values += kLanes) {
    std::copy(values, values + kLanes, before);
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = before[from[lane]];
  }
}

}  // namespace

Result<void> check_sweep(const float* w, int n_rows, int n_cols, const HessianFactor& factor,
                         std::string_view name, Stop* stop) {
  if (factor.dim() != n_cols)
    return fail("{}: the Hessian has dimension {}, expected {}", name, factor.dim(), n_cols);
  for (int r = 0; r < n_rows; ++r, w += n_cols) {
    ASSAY_TRY_VOID(go_on(stop));
    for (int c = 0; c < n_cols; ++c)
      if (!std::isfinite(w[c]))
        return fail("{}: row {}, column {} is not finite: the checkpoint is damaged", name, r, c);
  }
  return {};
}

ColumnSweep::ColumnSweep(const float* w, int n_rows, int n_cols, const HessianFactor& factor,
                         ThreadPool& pool, Stop* stop)
    : n_rows_(n_rows),
      n_cols_(n_cols),
      n_chunks_((n_rows + kLanes - 1) / kLanes),
      factor_(factor),
      pool_(pool),
      stop_(stop) {
  CHECK(factor.dim() == n_cols) << factor.dim() << " " << n_cols;
  w_.assign(static_cast<std::size_t>(n_chunks_) * static_cast<std::size_t>(n_cols) * kLanes, 0.0f);
  e_ = w_;
  pool.parallel_for(n_chunks_, [&](int chunk) {
    if (is_stopped(stop)) return;  // run() says so
    for (int lane = 0; lane < n_rows_of(chunk); ++lane) {
      const float* row = w + static_cast<std::ptrdiff_t>(chunk * kLanes + lane) * n_cols;
      for (int c = 0; c < n_cols; ++c) at(w_, chunk, c)[lane] = row[factor.column(c)];
    }
  });
}

void ColumnSweep::begin_panel(int chunk, int first, int n, float* sums) {
  if (first == 0) return;
  push_errors(kernels::usable_cpu_targets().front(),
              {.errors = at(e_, chunk, 0),
               .panel = factor_.panel(first / HessianFactor::kPanelCols),
               .sums = sums,
               .n_errors = first,
               .n_cols = n,
               .n_lanes = kLanes,
               .panel_stride = HessianFactor::kPanelCols});
}

// Adds what this block's errors do to itself and to the panel's columns right of it.
void ColumnSweep::end_block(int chunk, int col, int dim, int first, int n, float* sums,
                            const float* q) {
  float* e = at(e_, chunk, col);
  const float* w = at(w_, chunk, col);
  for (int i = 0; i < dim * kLanes; ++i) e[i] = w[i] - q[i];
  const int at_col = col - first;
  push_errors(kernels::usable_cpu_targets().front(),
              {.errors = e,
               .panel = factor_.panel(first / HessianFactor::kPanelCols) +
                        static_cast<std::ptrdiff_t>(col) * HessianFactor::kPanelCols + at_col,
               .sums = sums + static_cast<std::ptrdiff_t>(at_col) * kLanes,
               .n_errors = dim,
               .n_cols = n - at_col,
               .n_lanes = kLanes,
               .panel_stride = HessianFactor::kPanelCols});
  for (int r = 0; r < n_rows_of(chunk); ++r)
    for (int i = 0; i < dim; ++i) {
      const auto v = static_cast<double>(sums[(at_col + i) * kLanes + r]);
      row_error_[static_cast<std::size_t>(chunk) * kLanes + static_cast<std::size_t>(r)] += v * v;
    }
}

// Errors left of the panel are many and not asked for before its end: there they are put in order
// once, by where each lane's coding stood when the panel began.
void ColumnSweep::inherit(const Block& b, const std::uint8_t* from) {
  if (is_identity(from)) return;
  reorder(at(e_, b.chunk, b.first), b.col - b.first, from);
  reorder(b.s, b.end - b.col, from);
  reorder(b.origin, 1, from);
  double* error = &row_error_[static_cast<std::size_t>(b.chunk) * kLanes];
  double before[kLanes];
  std::copy(error, error + n_rows_of(b.chunk), before);
  for (int lane = 0; lane < n_rows_of(b.chunk); ++lane) error[lane] = before[from[lane]];
}

void ColumnSweep::end_panel(int chunk, int first, const std::uint8_t* origin) {
  if (!is_identity(origin)) reorder(at(e_, chunk, 0), first, origin);
}

std::vector<float> ColumnSweep::quantised() const {
  std::vector<float> out(static_cast<std::size_t>(n_rows_) * static_cast<std::size_t>(n_cols_));
  for (int r = 0; r < n_rows_; ++r)
    for (int c = 0; c < n_cols_; ++c) {
      const std::size_t from =
          (static_cast<std::size_t>(r / kLanes) * static_cast<std::size_t>(n_cols_) +
           static_cast<std::size_t>(c)) *
              kLanes +
          static_cast<std::size_t>(r % kLanes);
      out[static_cast<std::size_t>(r) * static_cast<std::size_t>(n_cols_) +
          static_cast<std::size_t>(factor_.column(c))] = w_[from] - e_[from];
    }
  return out;
}

Result<std::vector<double>> ColumnSweep::row_energy() {
  const std::vector<double> error = row_error_;
  const std::vector<float> errors = e_;
  ASSAY_TRY_VOID(run(
      1, [](int, int) {}, [](const Block& b) { std::fill(b.q, b.q + kLanes, 0.0f); }));
  std::vector<double> energy = row_error_;
  row_error_ = error;
  e_ = errors;
  return energy;
}

}  // namespace assay::engine
