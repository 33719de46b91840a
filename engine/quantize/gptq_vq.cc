#include "engine/quantize/gptq_vq.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/quantize/beam_sweep.h"
#include "engine/quantize/binary16.h"
#include "engine/quantize/block_table.h"
#include "engine/quantize/column_sweep.h"
#include "engine/quantize/sweep_cpu.h"
#include "engine/quantize/vq_descent.h"

namespace assay::engine {
namespace {

constexpr int kLanes = ColumnSweep::kLanes;

class VqSweep {
 public:
  VqSweep(const float* w, int n_rows, int n_cols, const Codebook& book, const HessianFactor& factor,
          const GptqVqOptions& options, ThreadPool& pool)
      : w_(w),
        n_rows_(n_rows),
        n_cols_(n_cols),
        n_groups_((n_cols + options.group - 1) / options.group),
        book_(book),
        factor_(factor),
        options_(options),
        pool_(pool),
        tables_(book, options.compensate ? &factor : nullptr, pool),
        sweep_(w, n_rows, n_cols, factor, pool, options.stop) {
    scales_.resize(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_groups_));
    for (int r = 0; r < n_rows; ++r)
      for (int g = 0; g < n_groups_; ++g)
        scale(r, g) = initial_scale(w + static_cast<std::ptrdiff_t>(r) * n_cols + g * options.group,
                                    std::min(options.group, n_cols - g * options.group));
    indices_.resize(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols / book.dim));
  }

  Result<VqEncoding> run() {
    VqEncoding best;
    std::vector<double> best_error;
    for (int pass = 0; pass <= (options_.compensate ? options_.n_refits : 0); ++pass) {
      if (pass > 0) refit_scales();
      ASSAY_TRY_VOID(sweep());
      keep_better(best, best_error);
    }
    if (options_.compensate && options_.n_descents > 0) {
      ASSAY_TRY(best_error, descend_from(best));
    }
    for (const double e : best_error) best.error += e;
    double energy = 0;
    ASSAY_TRY(const std::vector<double> row_energy, sweep_.row_energy());
    for (const double e : row_energy) energy += e;
    best.relative_error = energy > 0 ? best.error / energy : 0;
    return best;
  }

 private:
  Result<std::vector<double>> descend_from(VqEncoding& best) {
    VqCodes codes{best.indices, {}};
    for (const std::uint16_t s : best.scales) codes.scales.push_back(kernels::f16_to_f32(s));
    ASSAY_TRY(std::vector<double> error,
              descend(w_, n_rows_, n_cols_, book_, *options_.hessian, factor_.damping(),
                      options_.group, options_.n_descents, pool_, codes, options_.stop));
    best.indices = std::move(codes.indices);
    for (std::size_t i = 0; i < codes.scales.size(); ++i)
      best.scales[i] = f32_to_f16(codes.scales[i]);
    return error;
  }

  float& scale(int row, int group) {
    return scales_[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_groups_) +
                   static_cast<std::size_t>(group)];
  }

  Result<void> sweep() {
    numerator_.assign(scales_.size(), 0.0);
    denominator_.assign(scales_.size(), 0.0);
    if (is_beam()) {
      ASSAY_TRY(indices_, beam_codes({.w = w_,
                                      .scales = scales_.data(),
                                      .n_rows = n_rows_,
                                      .n_cols = n_cols_,
                                      .group = options_.group,
                                      .width = options_.beam,
                                      .stop = options_.stop},
                                     book_, factor_, pool_));
    }
    return sweep_.run(
        book_.dim, [&](int first, int end) { tables_.prepare(first, end); },
        [&](const ColumnSweep::Block& block) { choose(block); });
  }

  // Without feedback a codeword has no say in what follows, and the nearest is the best.
  bool is_beam() const { return options_.compensate && options_.beam > 1; }

  std::uint16_t& index(int row, int col) {
    return indices_[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols_ / book_.dim) +
                    static_cast<std::size_t>(col / book_.dim)];
  }

  void nearest(const ColumnSweep::Block& b, const float* y) {
    const int dim = book_.dim, group = b.column / options_.group, n = sweep_.n_rows_of(b.chunk);
    float u[ColumnSweep::kMaxDim * kLanes], score[kLanes], best[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s = lane < n ? scale(b.chunk * kLanes + lane, group) : 0.0f;
      const float inverse = s > 0 ? 1 / s : 0.0f;
      for (int j = 0; j < dim; ++j) u[j * kLanes + lane] = y[j * kLanes + lane] * inverse;
    }
    nearest_codewords(kernels::usable_cpu_targets().front(), {.u = u,
                                                              .table = tables_.at(b.col),
                                                              .score = score,
                                                              .index = best,
                                                              .dim = dim,
                                                              .n_codes = book_.n_codes,
                                                              .n_lanes = kLanes});
    for (int lane = 0; lane < n; ++lane)
      index(b.chunk * kLanes + lane, b.column) = static_cast<std::uint16_t>(best[lane]);
  }

  // Writes the block's codewords, those of the beam or the nearest, and what a refit of the scales
  // needs to know of them.
  void choose(const ColumnSweep::Block& b) {
    const int dim = book_.dim, group = b.column / options_.group, n = sweep_.n_rows_of(b.chunk);
    float y[ColumnSweep::kMaxDim * kLanes];
    tables_.targets(b, y);
    if (!is_beam()) nearest(b, y);
    std::fill(b.q, b.q + dim * kLanes, 0.0f);
    for (int lane = 0; lane < n; ++lane) {
      const int row = b.chunk * kLanes + lane;
      const auto k = static_cast<std::size_t>(index(row, b.column));
      for (int i = 0; i < dim; ++i)
        b.q[i * kLanes + lane] =
            scale(row, group) *
            book_.values[k * static_cast<std::size_t>(dim) + static_cast<std::size_t>(i)];
      const float* c = tables_.at(b.col) + k * static_cast<std::size_t>(dim + 1);
      const std::size_t at = static_cast<std::size_t>(row) * static_cast<std::size_t>(n_groups_) +
                             static_cast<std::size_t>(group);
      for (int j = 0; j < dim; ++j) {
        numerator_[at] += static_cast<double>(y[j * kLanes + lane]) * static_cast<double>(c[j]);
        denominator_[at] += static_cast<double>(c[j]) * static_cast<double>(c[j]);
      }
    }
  }

  // The scale that fits a group's chosen codewords best, Σ |y_b − scale c_b R_bb|², past errors
  // taken as they were.
  void refit_scales() {
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      const double fitted = denominator_[i] > 0 ? numerator_[i] / denominator_[i] : 0;
      if (fitted > 0) scales_[i] = round_to_f16(static_cast<float>(fitted));
    }
  }

  void keep_better(VqEncoding& best, std::vector<double>& best_error) {
    const std::vector<double>& error = sweep_.row_error();
    const bool first = best_error.empty();
    if (first) {
      best_error.resize(error.size());
      best.indices.resize(indices_.size());
      best.scales.resize(scales_.size());
    }
    const std::size_t per_row = indices_.size() / static_cast<std::size_t>(n_rows_);
    const auto groups = static_cast<std::size_t>(n_groups_);
    for (std::size_t r = 0; r < error.size(); ++r) {
      if (!first && error[r] >= best_error[r]) continue;
      best_error[r] = error[r];
      std::copy_n(indices_.begin() + static_cast<std::ptrdiff_t>(r * per_row), per_row,
                  best.indices.begin() + static_cast<std::ptrdiff_t>(r * per_row));
      for (std::size_t g = 0; g < groups; ++g)
        best.scales[r * groups + g] = f32_to_f16(scales_[r * groups + g]);
    }
  }

  const float* w_;
  int n_rows_, n_cols_, n_groups_;
  const Codebook& book_;
  const HessianFactor& factor_;
  const GptqVqOptions& options_;
  ThreadPool& pool_;
  BlockTables tables_;
  ColumnSweep sweep_;
  std::vector<float> scales_;                    // (n_rows, n_groups), binary16 values
  std::vector<std::uint16_t> indices_;           // (n_rows, n_cols / dim)
  std::vector<double> numerator_, denominator_;  // (n_rows, n_groups)
};

}  // namespace

Result<VqEncoding> gptq_vq(const float* w, int n_rows, int n_cols, const Codebook& codebook,
                           const HessianFactor& factor, const GptqVqOptions& options,
                           ThreadPool& pool, std::string_view name) {
  if (!is_searchable_dim(codebook.dim) || n_cols % codebook.dim != 0 ||
      options.group % codebook.dim != 0)
    return fail("{}: codewords of {} values do not divide {} columns in groups of {}", name,
                codebook.dim, n_cols, options.group);
  if (!is_beam_width(options.beam))
    return fail("{}: a beam of {}, expected 1, 2, 4, 8, 16, 32 or 64", name, options.beam);
  ASSAY_TRY_VOID(check_sweep(w, n_rows, n_cols, factor, name, options.stop));
  for (int c = 0; c < n_cols; ++c) {
    const int first = factor.column(c - c % codebook.dim);
    CHECK(first % codebook.dim == 0 && factor.column(c) == first + c % codebook.dim)
        << name << ": sub-vectors of " << codebook.dim << " are torn apart at " << c;
  }
  return VqSweep(w, n_rows, n_cols, codebook, factor, options, pool).run();
}

}  // namespace assay::engine
