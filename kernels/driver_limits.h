// For tests: a driver that refuses memory, as it does where others have taken it.
#pragma once

#include <atomic>

namespace assay::kernels {

// How many more of a kind this process gets. Negative: as many as there is memory for.
struct DriverLimits {
  std::atomic<int> graphs{-1}, pinned{-1};
};
DriverLimits& driver_limits();

}  // namespace assay::kernels
