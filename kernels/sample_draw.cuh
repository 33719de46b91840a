// Rows that draw their token: the filters, the draw, and where the drawn token lies.
#pragma once

#include <span>

#include "kernels/cuda_memory.h"
#include "kernels/sample_rows.cuh"

namespace assay::kernels::sampling {

class RowDrawer {
 public:
  // For steps in which at most max_rows draw.
  RowDrawer(int vocab, std::size_t max_rows, DeviceBudget& budget);

  // Once rows' chunks are scanned. `drawing`: the rows that draw, of those that `asked`; the
  // host's.
  void launch(const Rows& rows, const Scratch& scratch, std::span<const RowRequest> asked,
              std::span<const int> drawing, CudaStream stream);
  const Cut* cut() const { return cut_.data(); }         // (n_draws)
  const double* place() const { return place_.data(); }  // (n_draws, n_chunks, kPlaceSums)

 private:
  const int* sort(const Rows& rows, int first, int n, bool alone, CudaStream stream) const;

  int vocab_;
  DeviceArray<Key> keys_[2];
  DeviceArray<int> ids_[2], n_above_min_p_;
  DeviceArray<double> mass_, place_;
  DeviceArray<Cut> cut_;
  DeviceBytes sort_scratch_;
};

}  // namespace assay::kernels::sampling
