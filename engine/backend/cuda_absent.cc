// Instead of cuda_backend.cc where the build found no nvcc.
#include "engine/backend/backend.h"

namespace assay::engine {

Result<std::shared_ptr<const BackendModel>> load_cuda_model(const ModelConfig&, const ModelWeights&,
                                                            std::string_view) {
  return fail(
      "this assay was built without CUDA: install the CUDA toolkit, so that nvcc is found, and "
      "build again (ci/build release)");
}

}  // namespace assay::engine
