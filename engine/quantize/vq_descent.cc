#include "engine/quantize/vq_descent.h"

#include <algorithm>
#include <cmath>

#include "engine/quantize/binary16.h"
#include "engine/quantize/sweep_cpu.h"

namespace assay::engine {
namespace {

constexpr int kLanes = 64;       // rows that are worked on together
constexpr int kMaxDim = 16;      // of a sub-vector
constexpr int kPanelCols = 128;  // columns whose tables exist at a time

std::size_t size(int n) { return static_cast<std::size_t>(n); }

// H of one sub-vector's columns, as L Lᵀ with L lower triangular.
struct BlockFactor {
  double l[kMaxDim][kMaxDim];
};

class Descent {
 public:
  Descent(const float* w, int n_rows, int n_cols, const Codebook& book, const Hessian& h,
          double damping, int group, ThreadPool& pool, VqCodes& codes, Stop* stop)
      : n_rows_(n_rows),
        n_cols_(n_cols),
        group_(group),
        n_groups_((n_cols + group - 1) / group),
        n_chunks_((n_rows + kLanes - 1) / kLanes),
        book_(book),
        pool_(pool),
        codes_(codes),
        stop_(stop) {
    h_.resize(size(n_cols) * size(n_cols));
    // Once a stop is asked for these are left unfinished: pass() says so.
    pool.parallel_for(n_cols, [&](int r) {
      if (is_stopped(stop)) return;
      for (int c = 0; c < n_cols; ++c)
        h_[size(r) * size(n_cols) + size(c)] =
            static_cast<float>(h.at(r, c) + (r == c ? damping : 0.0));
    });
    w_.assign(size(n_chunks_) * size(n_cols) * kLanes, 0.0f);
    e_ = g_ = w_;
    pool.parallel_for(n_chunks_, [&](int chunk) {
      if (is_stopped(stop)) return;
      for (int lane = 0; lane < n_rows_of(chunk); ++lane)
        for (int c = 0; c < n_cols; ++c) {
          const int row = chunk * kLanes + lane;
          at(w_, chunk, c)[lane] = w[size(row) * size(n_cols) + size(c)];
          at(e_, chunk, c)[lane] = at(w_, chunk, c)[lane] - scale(row, c / group_) * code(row, c);
        }
      push(at(e_, chunk, 0), 0, n_cols_, at(g_, chunk, 0), 0, n_cols_);
    });
  }

  Result<void> pass() {
    const int dim = book_.dim;
    const std::size_t table_size = size(book_.n_codes) * size(dim + 1);
    for (int first = 0; first < n_cols_; first += kPanelCols) {
      const int end = std::min(n_cols_, first + kPanelCols), n_blocks = (end - first) / dim;
      tables_.resize(table_size * size(n_blocks));
      factors_.resize(size(n_blocks));
      pool_.parallel_for(n_blocks, [&](int b) {
        factors_[size(b)] = factor_block(first + b * dim);
        fill_table(factors_[size(b)], &tables_[table_size * size(b)]);
      });
      ASSAY_TRY_VOID(parallel_for(pool_, stop_, n_chunks_, [&](int chunk) {
        for (int b = 0; b < n_blocks; ++b)
          choose(chunk, first + b * dim, factors_[size(b)], &tables_[table_size * size(b)]);
      }));
    }
    return parallel_for(pool_, stop_, n_chunks_, [&](int chunk) {
      for (int g = 0; g < n_groups_; ++g) refit_scale(chunk, g);
    });
  }

  std::vector<double> row_error() {
    std::vector<double> error(size(n_rows_), 0.0);
    for (int chunk = 0; chunk < n_chunks_; ++chunk)
      for (int c = 0; c < n_cols_; ++c)
        for (int lane = 0; lane < n_rows_of(chunk); ++lane)
          error[size(chunk * kLanes + lane)] += static_cast<double>(at(e_, chunk, c)[lane]) *
                                                static_cast<double>(at(g_, chunk, c)[lane]);
    return error;
  }

 private:
  int n_rows_of(int chunk) const { return std::min(kLanes, n_rows_ - chunk * kLanes); }
  float* at(std::vector<float>& v, int chunk, int col) const {
    return &v[(size(chunk) * size(n_cols_) + size(col)) * kLanes];
  }
  float& scale(int row, int g) { return codes_.scales[size(row) * size(n_groups_) + size(g)]; }
  std::uint16_t& index(int row, int block) {
    return codes_.indices[size(row) * size(n_cols_ / book_.dim) + size(block)];
  }
  float code(int row, int col) {
    const int dim = book_.dim;
    return book_.values[size(index(row, col / dim)) * size(dim) + size(col % dim)];
  }
  // sums[c] += Σ_k errors[k] H[from + k, to + c].
  void push(const float* errors, int from, int n_errors, float* sums, int to, int n) const {
    push_errors(kernels::usable_cpu_targets().front(),
                {.errors = errors,
                 .panel = &h_[size(from) * size(n_cols_) + size(to)],
                 .sums = sums,
                 .n_errors = n_errors,
                 .n_cols = n,
                 .n_lanes = kLanes,
                 .panel_stride = n_cols_});
  }
  double h(int row, int col) const {
    return static_cast<double>(h_[size(row) * size(n_cols_) + size(col)]);
  }

  BlockFactor factor_block(int col) const {
    BlockFactor f{};
    for (int j = 0; j < book_.dim; ++j)
      for (int i = j; i < book_.dim; ++i) {
        double sum = h(col + i, col + j);
        for (int k = 0; k < j; ++k) sum -= f.l[i][k] * f.l[j][k];
        // Rounding to float32 may leave a singular block a shade below zero.
        f.l[i][j] =
            i == j ? std::sqrt(std::max(sum, 1e-12 * h(col + j, col + j))) : sum / f.l[j][j];
      }
    return f;
  }

  // The codewords as this block's metric sees them, c L, and half of their squared norms.
  void fill_table(const BlockFactor& f, float* table) const {
    const int dim = book_.dim;
    for (int k = 0; k < book_.n_codes; ++k, table += dim + 1) {
      const float* c = &book_.values[size(k) * size(dim)];
      double norm = 0;
      for (int j = 0; j < dim; ++j) {
        double sum = 0;
        for (int i = j; i < dim; ++i) sum += static_cast<double>(c[i]) * f.l[i][j];
        table[j] = static_cast<float>(sum);
        norm += static_cast<double>(table[j]) * static_cast<double>(table[j]);
      }
      table[dim] = static_cast<float>(norm / 2);
    }
  }

  // The codeword that is best for columns col … given all other errors: with f = (e H) there, less
  // the block's own part, the target is w + f H_bb⁻¹, and in the metric y = w L + f L⁻ᵀ.
  void choose(int chunk, int col, const BlockFactor& factor, const float* table) {
    const int dim = book_.dim, g = col / group_, n = n_rows_of(chunk);
    const float* w = at(w_, chunk, col);
    float* e = at(e_, chunk, col);
    const float* gradient = at(g_, chunk, col);
    float u[kMaxDim * kLanes], score[kLanes], best[kLanes], change[kMaxDim * kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s = lane < n ? scale(chunk * kLanes + lane, g) : 0.0f;
      const double inverse = s > 0 ? 1 / static_cast<double>(s) : 0.0;
      double v[kMaxDim];
      for (int j = 0; j < dim; ++j) {
        double f = static_cast<double>(gradient[j * kLanes + lane]);
        for (int i = 0; i < dim; ++i)
          f -= static_cast<double>(e[i * kLanes + lane]) * h(col + i, col + j);
        for (int i = 0; i < j; ++i) f -= factor.l[j][i] * v[i];
        v[j] = f / factor.l[j][j];
        double y = v[j];
        for (int i = j; i < dim; ++i)
          y += static_cast<double>(w[i * kLanes + lane]) * factor.l[i][j];
        u[j * kLanes + lane] = static_cast<float>(y * inverse);
      }
    }
    nearest_codewords(kernels::usable_cpu_targets().front(), {.u = u,
                                                              .table = table,
                                                              .score = score,
                                                              .index = best,
                                                              .dim = dim,
                                                              .n_codes = book_.n_codes,
                                                              .n_lanes = kLanes});
    bool changed = false;
    std::fill(change, change + dim * kLanes, 0.0f);
    for (int lane = 0; lane < n; ++lane) {
      const int row = chunk * kLanes + lane;
      const auto k = static_cast<std::uint16_t>(best[lane]);
      if (k == index(row, col / dim) || scale(row, g) == 0) continue;
      index(row, col / dim) = k;
      changed = true;
      for (int i = 0; i < dim; ++i) {
        const float now = w[i * kLanes + lane] - scale(row, g) * code(row, col + i);
        change[i * kLanes + lane] = now - e[i * kLanes + lane];
        e[i * kLanes + lane] = now;
      }
    }
    if (changed) push(change, col, dim, at(g_, chunk, 0), 0, n_cols_);
  }

  // A group's scale that fits its codewords p best: s += (e H pᵀ) / (p H pᵀ).
  void refit_scale(int chunk, int g) {
    const int first = g * group_, width = std::min(group_, n_cols_ - first), n = n_rows_of(chunk);
    std::vector<float> p(size(width) * kLanes, 0.0f), sums(p.size(), 0.0f);
    for (int c = 0; c < width; ++c)
      for (int lane = 0; lane < n; ++lane)
        p[size(c) * kLanes + size(lane)] = code(chunk * kLanes + lane, first + c);
    push(p.data(), first, width, sums.data(), first, width);
    float step[kLanes] = {};
    for (int lane = 0; lane < n; ++lane) {
      double own = 0, slope = 0;
      for (int c = 0; c < width; ++c) {
        const auto v = static_cast<double>(p[size(c) * kLanes + size(lane)]);
        own += v * static_cast<double>(sums[size(c) * kLanes + size(lane)]);
        slope += v * static_cast<double>(at(g_, chunk, first + c)[lane]);
      }
      float& s = scale(chunk * kLanes + lane, g);
      if (s == 0 || !(own > 0)) continue;
      const double fitted = static_cast<double>(s) + slope / own;
      if (!(fitted > 0)) continue;
      const float rounded = round_to_f16(static_cast<float>(fitted));
      if (rounded == 0 || !std::isfinite(rounded)) continue;
      step[lane] = rounded - s;
      s = rounded;
    }
    for (int c = 0; c < width; ++c)
      for (int lane = 0; lane < kLanes; ++lane) {
        float& v = p[size(c) * kLanes + size(lane)];
        v *= -step[lane];
        at(e_, chunk, first + c)[lane] += v;
      }
    push(p.data(), first, width, at(g_, chunk, 0), 0, n_cols_);
  }

  int n_rows_, n_cols_, group_, n_groups_, n_chunks_;
  const Codebook& book_;
  ThreadPool& pool_;
  VqCodes& codes_;
  Stop* stop_;
  std::vector<float> h_;          // (n_cols, n_cols), damped
  std::vector<float> w_, e_, g_;  // (chunk, column, lane): weights, w − q, and (w − q) H
  std::vector<float> tables_;
  std::vector<BlockFactor> factors_;
};

}  // namespace

Result<std::vector<double>> descend(const float* w, int n_rows, int n_cols,
                                    const Codebook& codebook, const Hessian& h, double damping,
                                    int group, int n_passes, ThreadPool& pool, VqCodes& codes,
                                    Stop* stop) {
  Descent descent(w, n_rows, n_cols, codebook, h, damping, group, pool, codes, stop);
  for (int i = 0; i < n_passes; ++i) ASSAY_TRY_VOID(descent.pass());
  return descent.row_error();
}

}  // namespace assay::engine
