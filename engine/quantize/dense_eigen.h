// The dense double-precision algebra of the quantiser: Eigen behind raw pointers. dense_eigen.cc is
// the only source that includes it, because it is compiled for AVX2 and Eigen's templates must not
// meet another instruction set's in one program. Single-threaded; same input, same bits on every
// machine (Eigen's block sizes would follow the cache that it finds: they are fixed here).
#pragma once

#include "engine/quantize/stop.h"

namespace assay::engine {

// A = L Lᵀ in place: a (dim, dim) row-major, its lower triangle read and replaced by L. False if A
// is not positive definite, a is then undefined. `stop` is asked before every block of columns (128
// of them from dim 1,024 on) and every 768 rows that it changes, an error then.
Result<bool> cholesky_lower(double* a, int dim, Stop* stop = nullptr);

// h[i, j] += Σ_t x[t, i] x[t, j] for the tile of rows i and columns j; x (n_tokens, dim),
// h (dim, dim), row-major.
void add_outer_products(const float* x, int dim, int n_tokens, int first_row, int n_rows,
                        int first_col, int n_cols, double* h);

}  // namespace assay::engine
