// What recorded graphs take of a device: memory that only the driver knows of.
#pragma once

#include <cstddef>

namespace assay::kernels {

// By all graphs that the calling thread has recorded so far, in bytes that are not free any more.
// Those that others recorded at the same time are not among them; what another process takes while
// a graph is made is.
std::size_t recorded_graph_bytes();

}  // namespace assay::kernels
