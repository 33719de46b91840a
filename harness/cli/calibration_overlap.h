// Whether a build is judged by texts that it was calibrated with, which flatters it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/text/corpus.h"
#include "harness/divergence_base.h"

namespace assay::cli {

// {"set", "n_calibrated": of the judged texts, "n_judged"}; null if none is, or the candidate does
// not say what it was calibrated with. `file` is all that the judged texts were chosen from: a
// build that has no fingerprints of texts knows its whole set only, by how many texts and tokens of
// each language it has. Warns on standard error.
Json calibration_overlap(const engine::Engine& candidate,
                         const std::vector<harness::DivergenceBase::Text>& judged,
                         const std::vector<text::CorpusLine>& file);

}  // namespace assay::cli
