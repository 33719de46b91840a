#include "engine/quantize/gptq_vq.h"

#include <algorithm>
#include <cmath>

#include "engine/quantize/binary16.h"
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
        sweep_(w, n_rows, n_cols, factor, pool) {
    scales_.resize(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_groups_));
    for (int r = 0; r < n_rows; ++r)
      for (int g = 0; g < n_groups_; ++g)
        scale(r, g) = initial_scale(w + static_cast<std::ptrdiff_t>(r) * n_cols + g * options.group,
                                    std::min(options.group, n_cols - g * options.group));
    indices_.resize(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols / book.dim));
  }

  VqEncoding run() {
    VqEncoding best;
    std::vector<double> best_error;
    for (int pass = 0; pass <= (options_.compensate ? options_.n_refits : 0); ++pass) {
      if (pass > 0) refit_scales();
      sweep();
      keep_better(best, best_error);
    }
    if (options_.compensate && options_.n_descents > 0) best_error = descend_from(best);
    for (const double e : best_error) best.error += e;
    double energy = 0;
    for (const double e : sweep_.row_energy()) energy += e;
    best.relative_error = energy > 0 ? best.error / energy : 0;
    return best;
  }

 private:
  std::vector<double> descend_from(VqEncoding& best) {
    VqCodes codes{best.indices, {}};
    for (const std::uint16_t s : best.scales) codes.scales.push_back(kernels::f16_to_f32(s));
    std::vector<double> error =
        descend(w_, n_rows_, n_cols_, book_, *options_.hessian, factor_.damping(), options_.group,
                options_.n_descents, pool_, codes);
    best.indices = std::move(codes.indices);
    for (std::size_t i = 0; i < codes.scales.size(); ++i)
      best.scales[i] = f32_to_f16(codes.scales[i]);
    return error;
  }

  float& scale(int row, int group) {
    return scales_[static_cast<std::size_t>(row) * static_cast<std::size_t>(n_groups_) +
                   static_cast<std::size_t>(group)];
  }

  // The codebook as block `col` sees it, c R_bb, and half of its squared norms: what
  // nearest_codewords searches. Without feedback the codewords themselves.
  void fill_table(int col, float* table) const {
    const int dim = book_.dim;
    for (int k = 0; k < book_.n_codes; ++k, table += dim + 1) {
      const float* c = &book_.values[static_cast<std::size_t>(k) * static_cast<std::size_t>(dim)];
      double norm = 0;
      for (int j = 0; j < dim; ++j) {
        double sum = 0;
        for (int i = 0; i <= j; ++i)
          sum += static_cast<double>(c[i]) *
                 (options_.compensate ? static_cast<double>(factor_.at(col + i, col + j))
                  : i == j            ? 1.0
                                      : 0.0);
        table[j] = static_cast<float>(sum);
        norm += static_cast<double>(table[j]) * static_cast<double>(table[j]);
      }
      table[dim] = static_cast<float>(norm / 2);
    }
  }

  void sweep() {
    const int dim = book_.dim;
    const std::size_t table_size =
        static_cast<std::size_t>(book_.n_codes) * static_cast<std::size_t>(dim + 1);
    std::vector<float> tables;
    int first_col = 0;
    numerator_.assign(scales_.size(), 0.0);
    denominator_.assign(scales_.size(), 0.0);
    sweep_.run(
        dim,
        [&](int first, int end) {
          first_col = first;
          tables.resize(table_size * static_cast<std::size_t>((end - first) / dim));
          pool_.parallel_for((end - first) / dim, [&](int b) {
            fill_table(first + b * dim, &tables[table_size * static_cast<std::size_t>(b)]);
          });
        },
        [&](const ColumnSweep::Block& block) {
          choose(block,
                 &tables[table_size * static_cast<std::size_t>((block.col - first_col) / dim)]);
        });
  }

  void choose(const ColumnSweep::Block& b, const float* table) {
    const int dim = book_.dim, group = b.col / options_.group, n = sweep_.n_rows_of(b.chunk);
    float y[ColumnSweep::kMaxDim * kLanes], u[ColumnSweep::kMaxDim * kLanes];
    float score[kLanes], index[kLanes];
    for (int j = 0; j < dim; ++j)  // y = w R_bb + s
      for (int lane = 0; lane < kLanes; ++lane) {
        float sum = options_.compensate ? b.s[j * kLanes + lane] : b.w[j * kLanes + lane];
        for (int i = 0; options_.compensate && i <= j; ++i)
          sum += b.w[i * kLanes + lane] * factor_.at(b.col + i, b.col + j);
        y[j * kLanes + lane] = sum;
      }
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s = lane < n ? scale(b.chunk * kLanes + lane, group) : 0.0f;
      const float inverse = s > 0 ? 1 / s : 0.0f;
      for (int j = 0; j < dim; ++j) u[j * kLanes + lane] = y[j * kLanes + lane] * inverse;
    }
    nearest_codewords(kernels::usable_cpu_targets().front(), {.u = u,
                                                              .table = table,
                                                              .score = score,
                                                              .index = index,
                                                              .dim = dim,
                                                              .n_codes = book_.n_codes,
                                                              .n_lanes = kLanes});
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto k = static_cast<std::size_t>(index[lane]);
      const float s = lane < n ? scale(b.chunk * kLanes + lane, group) : 0.0f;
      for (int i = 0; i < dim; ++i)
        b.q[i * kLanes + lane] =
            s * book_.values[k * static_cast<std::size_t>(dim) + static_cast<std::size_t>(i)];
      if (lane >= n) continue;
      const auto row = static_cast<std::size_t>(b.chunk) * kLanes + static_cast<std::size_t>(lane);
      indices_[row * static_cast<std::size_t>(n_cols_ / dim) +
               static_cast<std::size_t>(b.col / dim)] = static_cast<std::uint16_t>(k);
      const float* c = table + k * static_cast<std::size_t>(dim + 1);
      const std::size_t at =
          row * static_cast<std::size_t>(n_groups_) + static_cast<std::size_t>(group);
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
  ASSAY_TRY_VOID(check_sweep(w, n_rows, n_cols, factor, name));
  return VqSweep(w, n_rows, n_cols, codebook, factor, options, pool).run();
}

}  // namespace assay::engine
