#include "engine/quantize/dense_eigen.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu_target.h"

namespace assay::engine {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Of the rows below a block, so that a step is short at GLM-5.2's widths too. A multiple of the 12
// that Eigen's product works on at once: the bits are then those of a step of all rows.
constexpr int kRowsAtOnce = 768;

void prepare_eigen() {
  static const bool ready = [] {
    CHECK(!kernels::usable_cpu_targets().empty()) << "the quantiser needs AVX2 and FMA";
    Eigen::setCpuCacheSizes(32 << 10, 512 << 10, 4 << 20);
    return true;
  }();
  static_cast<void>(ready);
}

}  // namespace

// By blocks, as wide as Eigen::LLT's, so that the bits are its; but LLT asks nobody whether to go
// on, for a minute and more at the width of GLM-5.2's dense layers. A block's own factor is
// Eigen's: the index of the first pivot that is not above zero, or -1.
Result<bool> cholesky_lower(double* a, int dim, Stop* stop) {
  prepare_eigen();
  Eigen::Map<RowMajor> matrix(a, dim, dim);
  const int width = dim < 32 ? dim : std::clamp(dim / 8 / 16 * 16, 8, 128);
  for (int col = 0; col < dim; col += width) {
    ASSAY_TRY_VOID(go_on(stop));
    const int n = std::min(width, dim - col), n_below = dim - col - n;
    auto diagonal = matrix.block(col, col, n, n);
    if (Eigen::internal::llt_inplace<double, Eigen::Lower>::unblocked(diagonal) >= 0) return false;
    if (n_below == 0) break;
    auto below = matrix.block(col + n, col, n_below, n);
    diagonal.adjoint().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(below);
    // The rest, of which the lower triangle, less below · belowᵀ; by rows, so that it is soon
    // asked.
    for (int row = 0; row < n_below; row += kRowsAtOnce) {
      ASSAY_TRY_VOID(go_on(stop));
      const int n_rows = std::min(kRowsAtOnce, n_below - row);
      const auto part = below.middleRows(row, n_rows);
      const int first = col + n + row;
      if (row > 0)
        matrix.block(first, col + n, n_rows, row).noalias() -= part * below.topRows(row).adjoint();
      matrix.block(first, first, n_rows, n_rows)
          .selfadjointView<Eigen::Lower>()
          .rankUpdate(part, -1.0);
    }
  }
  return std::isfinite(matrix.diagonal().sum());  // a NaN passes every comparison with a pivot
}

void add_outer_products(const float* x, int dim, int n_tokens, int first_row, int n_rows,
                        int first_col, int n_cols, double* h) {
  prepare_eigen();
  const Eigen::Map<const FloatRows> tokens(x, n_tokens, dim);
  const RowMajor left = tokens.middleCols(first_row, n_rows).cast<double>();
  const RowMajor right = tokens.middleCols(first_col, n_cols).cast<double>();
  Eigen::Map<RowMajor>(h, dim, dim).block(first_row, first_col, n_rows, n_cols).noalias() +=
      left.transpose() * right;
}

}  // namespace assay::engine
