// Makes a damaged copy of a model folder. Files that do not change are symbolic links to the
// original's, so a copy costs what the fault touches and lasts as long as the original does.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "engine/fault.h"

namespace assay::engine {

// Reads dense checkpoints and VQ ones with a module per expert (docs/formats/vq.md); experts that
// are stacked in one tensor are refused. `out` must not exist. quantisation.json, which names the
// fingerprint that the tensors must have, is left out where they change: with it every fault of a
// tensor would be found on loading, by that alone. An expert, layer, tier or token that the model
// does not have is an error, and so is a fault that would change nothing; `out` is then not there.
Result<void> plant(const std::filesystem::path& model, const Fault& fault,
                   const std::filesystem::path& out);

}  // namespace assay::engine
