// A checkpoint's matrices as kernels take them.
#pragma once

#include <vector>

#include "engine/checkpoint/weights.h"
#include "kernels/dtype.h"
#include "kernels/quantised.h"

namespace assay::engine {

// Of a dense matrix.
kernels::WeightMatrix view(const Matrix& m);

// n rows of it from row `first` on.
kernels::WeightMatrix rows_of(const kernels::WeightMatrix& w, int first, int n);
kernels::VqMatrix rows_of(const kernels::VqMatrix& w, int first, int n);

// All weights (n_rows, n_cols), whatever the storage; of one row, n_cols.
void row_to_floats(const Matrix& m, int row, float* out);
std::vector<float> to_floats(const Matrix& m);

}  // namespace assay::engine
