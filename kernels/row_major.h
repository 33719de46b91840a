// Where an element of a row-major matrix lies, widened before it is multiplied.
#pragma once

#include <cstddef>

namespace assay::kernels {

constexpr std::size_t row_major(int row, int n_cols, int col) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(n_cols) +
         static_cast<std::size_t>(col);
}

}  // namespace assay::kernels
