// What the current GPU can do at best, measured in the same process as what is compared with it.
#pragma once

namespace assay::kernels {

// Bytes per second at which a kernel that does nothing else reads memory, over and over a buffer of
// 1 GiB, which no second-level cache holds. std::bad_alloc where there is no room for it.
double read_bytes_per_s_cuda();

// Fused multiply-adds per second of the tensor cores together on operands of 16 bits, summed in
// float32: a warpgroup's instructions on sm_90, else a warp's. For that many the operands wait in
// registers and shared memory, and are random, so that they take the power that a model's would.
double half_fma_per_s_cuda();

}  // namespace assay::kernels
