#include "engine/quantize/dense_eigen.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu_target.h"

namespace assay::engine {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void prepare_eigen() {
  static const bool ready = [] {
    CHECK(!kernels::usable_cpu_targets().empty()) << "the quantiser needs AVX2 and FMA";
    Eigen::setCpuCacheSizes(32 << 10, 512 << 10, 4 << 20);
    return true;
  }();
  static_cast<void>(ready);
}

}  // namespace

bool cholesky_lower(double* a, int dim) {
  prepare_eigen();
  Eigen::Map<RowMajor> matrix(a, dim, dim);
  const Eigen::LLT<Eigen::Ref<RowMajor>> llt(matrix);
  // LLT notices a negative pivot, but a NaN passes its comparison.
  return llt.info() == Eigen::Success && std::isfinite(matrix.diagonal().sum());
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
