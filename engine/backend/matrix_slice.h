// Parts of a checkpoint's matrices, of the same kind as the whole and with exactly its weights.
// Rows are views where the storage lets them; columns, and what GPTQ packs along rows, are laid out
// anew.
#pragma once

#include <memory>
#include <vector>

#include "engine/checkpoint/weights.h"

namespace assay::engine {

using Owned = std::vector<std::shared_ptr<const void>>;  // as ModelWeights::owned

// Rows, or columns, [first, first + n) of a matrix; n > 0. What had to be laid out anew is added to
// `owned`; the rest still points to where `m` does. An empty matrix has empty parts.
Matrix rows_of(const Matrix& m, int first, int n, Owned& owned);
// `first` and `n` are multiples of column_unit. A boundary inside a scale group makes the part's
// groups smaller, each with the scale of the group that it lay in.
Matrix columns_of(const Matrix& m, int first, int n, Owned& owned);

// Columns that cannot be parted: a codeword's.
int column_unit(const Matrix& m);
// Columns that share a scale; 1 where none do.
int column_group(const Matrix& m);

}  // namespace assay::engine
