#include "engine/quantize/hessian.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "engine/quantize/dense_eigen.h"

namespace assay::engine {
namespace {

// Tiles of the accumulation, and tokens that are added at once.
constexpr int kTile = 256, kTokens = 512;

struct Damped {
  std::vector<double> reversed;  // the lower factor of the matrix with rows and columns reversed
  double damping, share;
};

// J (H + damping I) J = L Lᵀ, where J reverses: then R = J L J is upper and H + damping I = R Rᵀ,
// with H's columns and rows in the order of `columns`.
Result<Damped> factor_reversed(const Hessian& h, double damping_share, std::string_view name,
                               Stop* stop, const std::vector<int>& columns) {
  const int dim = h.dim();
  double sum = 0;
  int n_live = 0;
  for (const double d : h.diagonal()) {
    if (!std::isfinite(d) || d < 0)
      return fail(
          "{}: the Hessian's diagonal has {}: an activation is not finite. Look for NaN or "
          "infinity in the calibration forward pass",
          name, d);
    sum += d;
    n_live += d > 0;
  }
  if (!(damping_share > 0))
    return fail("{}: damping share {}, expected above 0 (GPTQ uses 0.01)", name, damping_share);
  const double mean = n_live > 0 ? sum / n_live : 0;

  constexpr int kTries = 4;
  const std::size_t n = static_cast<std::size_t>(dim);
  Damped result{std::vector<double>(n * n), 0, damping_share};
  const auto column = [&](int reversed) {
    return columns[static_cast<std::size_t>(dim - 1 - reversed)];
  };
  for (int attempt = 0; attempt < kTries; ++attempt, result.share *= 10) {
    result.damping = mean > 0 ? result.share * mean : 1.0;
    for (int row = 0; row < dim; ++row) {
      ASSAY_TRY_VOID(go_on(stop));
      for (int col = 0; col <= row; ++col)
        result.reversed[static_cast<std::size_t>(row) * n + static_cast<std::size_t>(col)] =
            h.at(column(row), column(col)) + (row == col ? result.damping : 0.0);
    }
    ASSAY_TRY(const bool is_definite, cholesky_lower(result.reversed.data(), dim, stop));
    if (is_definite) return result;
  }
  return fail(
      "{}: the Hessian (dimension {}, {} samples) is not positive definite, even damped by {:.0f} "
      "% of its mean diagonal. It is no sum of x xᵀ: check how it was gathered",
      name, dim, h.n_samples(), 100 * result.share / 10);
}

}  // namespace

Hessian::Hessian(int dim)
    : dim_(dim), upper_(static_cast<std::size_t>(dim) * static_cast<std::size_t>(dim)) {
  CHECK(dim > 0) << dim;
}

Result<void> Hessian::add(const float* x, int n_tokens, ThreadPool& pool, Stop* stop) {
  const int n_tiles = (dim_ + kTile - 1) / kTile;
  const auto add_tile = [&](int tile) {
    int col_tile = 0;
    while ((col_tile + 1) * (col_tile + 2) / 2 <= tile) ++col_tile;
    const int first_col = col_tile * kTile;
    const int first_row = (tile - col_tile * (col_tile + 1) / 2) * kTile;
    for (int token = 0; token < n_tokens && !is_stopped(stop); token += kTokens)
      add_outer_products(x + static_cast<std::size_t>(token) * static_cast<std::size_t>(dim_), dim_,
                         std::min(kTokens, n_tokens - token), first_row,
                         std::min(kTile, dim_ - first_row), first_col,
                         std::min(kTile, dim_ - first_col), upper_.data());
  };
  ASSAY_TRY_VOID(parallel_for(pool, stop, n_tiles * (n_tiles + 1) / 2, add_tile));
  n_samples_ += n_tokens;
  return {};
}

std::vector<double> Hessian::diagonal() const {
  std::vector<double> result(static_cast<std::size_t>(dim_));
  for (int i = 0; i < dim_; ++i) result[static_cast<std::size_t>(i)] = at(i, i);
  return result;
}

Result<Hessian> shrink(const Hessian& expert, const Hessian& layer, double strength, Stop* stop) {
  if (expert.dim_ != layer.dim_)
    return fail("shrink: the expert's Hessian has dimension {}, its layer's {}", expert.dim_,
                layer.dim_);
  if (strength < 0 || !std::isfinite(strength))
    return fail("shrink: strength {} samples, expected 0 or more", strength);
  if (layer.n_samples_ <= 0 && (strength > 0 || expert.n_samples_ <= 0))
    return fail("shrink: the layer's Hessian has no samples: run the calibration first");
  if (expert.n_samples_ <= 0 && strength <= 0)
    return fail("shrink: the expert has no samples and strength 0 asks for nothing else");
  const double weight = expert.n_samples_ / (expert.n_samples_ + strength);
  const double of_expert = expert.n_samples_ > 0 ? weight / expert.n_samples_ : 0;
  const double of_layer = layer.n_samples_ > 0 ? (1 - weight) / layer.n_samples_ : 0;
  Hessian result(expert.dim_);
  result.n_samples_ = 1;
  for (int row = 0; row < result.dim_; ++row) {
    ASSAY_TRY_VOID(go_on(stop));
    for (std::size_t i = result.index(row, 0); i < result.index(row + 1, 0); ++i)
      result.upper_[i] = of_expert * expert.upper_[i] + of_layer * layer.upper_[i];
  }
  return result;
}

std::vector<int> activation_order(const Hessian& h, int dim) {
  struct SubVector {
    double energy;
    int first;
  };
  std::vector<SubVector> order;
  for (int first = 0; first < h.dim(); first += dim) {
    order.push_back({0, first});
    for (int c = first; c < std::min(h.dim(), first + dim); ++c) order.back().energy += h.at(c, c);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const SubVector& a, const SubVector& b) { return a.energy > b.energy; });
  std::vector<int> columns;
  for (const SubVector& s : order)
    for (int c = s.first; c < std::min(h.dim(), s.first + dim); ++c) columns.push_back(c);
  return columns;
}

Result<HessianFactor> factor(const Hessian& h, double damping_share, std::string_view name,
                             Stop* stop, std::vector<int> columns) {
  HessianFactor result;
  const int dim = result.dim_ = h.dim();
  if (columns.empty()) {
    columns.resize(static_cast<std::size_t>(dim));
    std::iota(columns.begin(), columns.end(), 0);
  }
  CHECK(static_cast<int>(columns.size()) == dim) << columns.size() << " " << dim;
  ASSAY_TRY(const Damped damped, factor_reversed(h, damping_share, name, stop, columns));
  result.columns_ = std::move(columns);
  result.damping_ = damped.damping;
  result.damping_share_ = damped.share;
  result.panels_.assign(HessianFactor::panel_offset(result.n_panels()), 0.0f);
  constexpr int kCols = HessianFactor::kPanelCols;
  const std::size_t n = static_cast<std::size_t>(dim);
  for (int p = 0; p < result.n_panels(); ++p) {
    ASSAY_TRY_VOID(go_on(stop));
    float* panel = result.panels_.data() + HessianFactor::panel_offset(p);
    const int first_col = p * kCols, end_col = std::min(dim, first_col + kCols);
    for (int row = 0; row < end_col; ++row)
      for (int col = std::max(row, first_col); col < end_col; ++col)
        panel[row * kCols + col % kCols] =
            static_cast<float>(damped.reversed[static_cast<std::size_t>(dim - 1 - row) * n +
                                               static_cast<std::size_t>(dim - 1 - col)]);
  }
  return result;
}

}  // namespace assay::engine
