// Which of the machine's GPUs the calling thread uses: the one of select_cuda_device, else 0.
#pragma once

namespace assay::kernels {

int current_cuda_device();

}  // namespace assay::kernels
