// The texts that quantisation is calibrated on.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "engine/quantize/quantize.h"

namespace assay::cli {

// The bundled set that a recipe means.
std::string default_calibration(const std::string& recipe);

// Token ids of a calibration set in the model's own words; `limit` > 0: only its first texts.
Result<std::vector<engine::CalibrationText>> read_calibration(const std::string& file,
                                                              const fs::path& model, int limit);

}  // namespace assay::cli
