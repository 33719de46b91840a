// moe_cuda of a layer in partial sums (vq_sums.h).
#pragma once

#include "kernels/moe_cuda.h"

namespace assay::kernels {

// As many tokens at a time as there is room for.
void moe_sums_cuda(const MoeCudaArgs& args, CudaStream stream);

}  // namespace assay::kernels
